"""What each cause means in words, what to do, and which bounded repair is safe. All of it is ours: nothing of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

from postgrad.records import Cause, Mend


@dataclass(frozen=True)
class Meaning:
    """One cause: a sentence, what to do next, words for memory, and what may be tried without asking."""

    said: str
    advice: str
    lesson: str
    repair: Mend | None = None


LESS_MEMORY = Mend(kind="less_memory", words="the same with half the rows at once, or shorter texts", most=2)
SLOWER = Mend(kind="slower_learning", words="the same with a tenth of the learning rate and a longer warm-up", most=1)
SHORTER = Mend(kind="less_time", words="the same with half the epochs or a quarter of the rows", most=1)
AGAIN = Mend(kind="start_again", words="the very same job once more, from its last checkpoint", most=2)

MEANINGS: Mapping[Cause, Meaning] = {
    "cuda_oom": Meaning(
        "The GPU's memory was full.",
        "Halve the rows at once and double the steps that gradients are summed over; then gradient checkpointing, "
        "shorter sequences, adapters in place of all weights.",
        "this batch and length do not fit the GPU",
        LESS_MEMORY,
    ),
    "host_oom": Meaning(
        "The machine's memory, or the job's share of it, was full.",
        "Halve the rows at once, keep data on disk and not in memory, use fewer loader processes; else raise "
        "engine.memory_mb.",
        "this recipe needs more memory than a job has",
        LESS_MEMORY,
    ),
    "disk_full": Meaning(
        "A file could not be written: disk, quota or the job's own limit is used up.",
        "Free space or raise the job's disk limit; save fewer checkpoints.",
        "checkpoints of this size do not fit the disk",
    ),
    "timeout": Meaning(
        "It ran longer than it may.",
        "Take fewer epochs or rows, a smaller model, or raise engine.job_wall_s or the budget that is named.",
        "this recipe takes longer than a job may",
        SHORTER,
    ),
    "hang": Meaning(
        "It stopped computing without ending: something waits for what never comes.",
        "Read the stack: a lock, a queue, a pipe or a collective is waited for. Try without loader processes.",
        "this program can wait for ever",
    ),
    "preemption": Meaning(
        "It was asked to end from outside (SIGTERM): preempted, cancelled or shut down with its node.",
        "Start the same job again: it goes on from its last checkpoint.",
        "nothing of the recipe: the machine was taken away",
        AGAIN,
    ),
    "node_lost": Meaning(
        "A process or node that it worked with is gone.",
        "Look why the other side died: its own log comes first. Start the same job again.",
        "nothing of the recipe: the other side was lost",
        AGAIN,
    ),
    "nan": Meaning(
        "A loss, gradient or output is not a number.",
        "Lower the learning rate, clip gradients, train in bf16 or fp32 in place of fp16, look for empty rows.",
        "this learning rate or precision gives NaN",
        SLOWER,
    ),
    "divergence": Meaning(
        "The loss rose in place of falling: the steps are too large.",
        "Lower the learning rate and warm up longer.",
        "this learning rate diverges",
        SLOWER,
    ),
    "loss_spike": Meaning(
        "The loss jumped far above its course and did not get back.",
        "Look at the batch at that step, clip gradients, lower the learning rate; or go on from the checkpoint before "
        "without that batch.",
        "the loss of this recipe spikes",
        SLOWER,
    ),
    "dead_reward": Meaning(
        "The rewards of a group are all alike, so there is nothing to learn from.",
        "Check that the reward can be reached at all: easier prompts, more samples, partial credit, or a stage of "
        "supervised fine-tuning first.",
        "the reward does not tell answers apart",
    ),
    "data_schema": Meaning(
        "The data are not in the form that was expected.",
        "Look at the row or column that is named; make all files alike and in UTF-8.",
        "data and reader disagree on columns or encoding",
    ),
    "chat_template": Meaning(
        "The chat template is missing or does not take these messages.",
        "Set a template that fits the model, and messages with role and content in the order it takes.",
        "messages and chat template do not fit",
    ),
    "tokenizer": Meaning(
        "Tokenizer and model or texts do not fit: ids, special tokens or files.",
        "Resize the embedding after tokens are added, set a padding token, take the tokenizer of the base model.",
        "tokenizer and model do not fit",
    ),
    "import": Meaning(
        "A package or a part of one cannot be imported.",
        "Install what is named, or leave out the feature that needs it.",
        "a package is missing here",
    ),
    "version": Meaning(
        "An installed version is not the one that is needed.",
        "Install the version that is named; compare with constraints.txt.",
        "installed versions do not fit",
    ),
    "permission": Meaning(
        "A file, folder or model may not be read or written by this user.",
        "Choose a folder that may be written, or have access granted.",
        "no right to a place that is needed",
    ),
    "sandbox_refusal": Meaning(
        "It tried what a job may not do, and the sandbox refused.",
        "Read and write in the job's folder only; name what else is needed in the task.",
        "this does what a job may not",
    ),
    "distributed_init": Meaning(
        "Processes that were to work together did not find each other.",
        "Free the port or choose another, start all ranks, and set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.",
        "the rendezvous did not come about",
    ),
    "hub_offline": Meaning(
        "A model or data set is not on this machine, and the hub cannot be reached from a job.",
        "Download it before the run and name its folder.",
        "what is named is not on this machine",
    ),
    "missing_file": Meaning(
        "A file or folder that is named is not there.",
        "Correct the path, or put the file there; of a model, config.json and its weights.",
        "a file is missing",
    ),
    "corrupt_model_file": Meaning(
        "A file of a model or checkpoint is cut off or not what its name says.",
        "Download or save it again; a pointer of git-lfs is a text of three lines in place of the weights.",
        "a model file is damaged",
    ),
    "bad_argument": Meaning(
        "A setting has a name or value that is not taken.",
        "Correct the setting that is named.",
        "a setting is not valid",
    ),
    "shape_mismatch": Meaning(
        "Tensors do not fit in shape or type.",
        "Compare the two shapes or types that are named: model width, number of labels, padding, precision.",
        "shapes or types do not fit",
    ),
    "bug": Meaning(
        "The program is wrong: it raised what a correct one does not.",
        "Read the last frames of the traceback.",
        "the program has a mistake",
    ),
    "killed_by_signal": Meaning(
        "A process died of a signal, without a word of Python.",
        "SIGKILL is most often the system short of memory; SIGSEGV, SIGBUS and SIGILL are native code: look at the "
        "extension that ran last, and whether it was built for this processor.",
        "native code died",
    ),
    "unknown": Meaning(
        "Nothing that it left says why.",
        "Run it once by hand with more output; faulthandler and PYTHONUNBUFFERED=1 help.",
        "no reason is known",
    ),
}
