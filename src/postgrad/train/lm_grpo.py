"""Learning from grades alone: GRPO by TRL. Answers are drawn as they are asked for, and graded by the task's metric."""

from __future__ import annotations

from typing import Any, Mapping

from postgrad.train.lm_generate import read_answer, sample
from postgrad.train.lm_later import PolicyGradient
from postgrad.train.lm_memory import needs_of
from postgrad.train.lm_sample import answering
from postgrad.train.lm_stages import Ground
from postgrad.train.lm_train import merged, run, with_adapters
from postgrad.train.lm_watch import settings

LOSS = {"batch": "dapo", "answer": "grpo"}


def missing_reward(logs: Mapping[str, Any]) -> float | None:
    """What the mean grade lacks to 1: falls as the model learns, as a loss does. The loss itself says nothing here."""
    return 1.0 - logs["reward"] if "reward" in logs else None


def reinforce(ground: Ground, stage: PolicyGradient, model: Any) -> Any:
    """Draw, grade, and make likelier what was better than its like, step by step.

    Raises:
        TrainingDiverged: a grade or a weight is not finite.
    """
    import torch

    tuned = with_adapters(model, stage) if stage.adapters else model
    tuned.train()
    batch = stage.prompts * stage.samples
    prompts = [ground.renderer.prompt(example.text).ids for example in ground.examples]
    longest = max(len(prompt) for prompt in prompts) + ground.job.generation.max_new_tokens
    needs = needs_of(stage, tuned, longest, ground.job.generation.max_new_tokens)

    def build(at_once: int) -> Any:
        torch.manual_seed(ground.job.seed)
        return _trainer(ground, stage, tuned, prompts, (at_once, batch // at_once, stage.steps))

    run(ground.job, tuned, build, needs, (batch, stage.steps), missing_reward)
    return merged(tuned, stage)


def _trainer(
    ground: Ground, stage: PolicyGradient, model: Any, prompts: list[tuple[int, ...]], sizes: tuple[int, int, int]
) -> Any:
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    job, renderer = ground.job, ground.renderer

    class Trainer(GRPOTrainer):
        """Prompts are numbers of rows, and become the tokens that the row is asked with."""

        def _send_telemetry(self) -> None:
            return None

        def _tokenize_prompts(self, numbers: Any) -> Any:
            return [list(prompts[int(number)]) for number in numbers], None, {}

        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **more: Any) -> Any:
            # As the model is asked when it is done: same end, stop texts and schema, same precision.
            twin = answering(self.accelerator.unwrap_model(self.model), ground)
            return sample(twin, renderer, job.generation, prompt_ids, stage.temperature), None

    def reward(prompts: Any, completions: Any, completion_ids: Any, **more: Any) -> list[float | None]:
        asked = [ground.examples[int(number)] for number in prompts]
        texts = [read_answer(renderer, job.generation, ids)[0] for ids in completion_ids]
        return [None if grade != grade else grade for grade in ground.grade(asked, texts)]

    told = GRPOConfig(
        **settings(job, stage, model, sizes, ground.bf16) | {"max_steps": stage.steps},
        num_generations=stage.samples,
        max_completion_length=job.generation.max_new_tokens,
        temperature=stage.temperature,
        beta=stage.beta,
        epsilon=stage.epsilon,
        loss_type=LOSS[stage.whole],
        scale_rewards="group" if stage.spread else "none",
        use_vllm=False,
    )
    rows = Dataset.from_list([{"prompt": str(number)} for number in range(len(prompts))])
    return Trainer(model=model, args=told, train_dataset=rows, processing_class=ground.tokenizer, reward_funcs=reward)
