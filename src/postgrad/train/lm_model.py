"""A tuned language model with everything that is needed to ask it, on the disk and alive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from postgrad.errors import UserError
from postgrad.records import Generation
from postgrad.train import scores
from postgrad.train.base import CheckFailed, Outputs, Texts
from postgrad.train.chat import Renderer
from postgrad.train.lm_choose import answer
from postgrad.train.lm_params import CausalLMParams
from postgrad.train.lm_score import log_likelihoods
from postgrad.train.models import model_hash
from postgrad.train.tuning import has_bf16

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS, ADAPTER, FACTS = "language_model", "adapter", "language_model.json"
# What the parts of a language model without any input are asked with (Zhao et al. 2021, section 4).
CONTENT_FREE = ("", "N/A", "[MASK]")
# Share of the spread of the logits that adapters on their base may differ from the merged weights, which are bf16.
ADAPTER_GAP = 0.05


@dataclass(frozen=True)
class Adapter:
    """Low-rank adapters as PEFT writes them: tensors by name, and the configuration as JSON."""

    tensors: Mapping[str, Any]
    config: str


@dataclass(frozen=True)
class LanguageModel:
    """What is asked.

    Attributes:
        model: in the precision in which it answers; its weights are bf16 numbers.
        labels: K, the width of an answer; 0 where answers are texts.
        candidates: the answers to choose from.
        columns: label of each candidate, -1 for the one that names what is out of scope.
        offsets: what is taken from the log-likelihood of each candidate; empty for nothing.
        adapter: what was trained, where it was adapters.
        base: folder of the base model, and what is told of it: name and hash.
        passed: the stages of its training with the hash of the weights that each left, where there were several.
    """

    model: Any
    renderer: Renderer
    params: CausalLMParams
    generation: Generation
    labels: int
    candidates: tuple[str, ...]
    columns: tuple[int, ...]
    offsets: tuple[float, ...] = ()
    adapter: Adapter | None = None
    base: Path | None = None
    passed: tuple[tuple[str, str], ...] = ()

    def predict(self, texts: Sequence[str]) -> Outputs | Texts:
        if not self.labels:
            return answer(self.model, self.renderer, self.generation, texts)
        return answered(self.likelihoods(texts), self.columns, self.labels, self.params.score)

    def likelihoods(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(N, C) log-likelihood of each candidate, divided and calibrated as the parameters say."""
        import numpy as np

        prompts = [self.renderer.prompt(text).ids for text in texts]
        answers = [self.renderer.target(candidate) for candidate in self.candidates]
        found = log_likelihoods(self.model, prompts, answers, self.renderer.prefix)
        if self.params.normalise == "tokens":
            found = found / np.array([len(answer) for answer in answers])
        return found - np.array(self.offsets) if self.offsets else found

    def content_free(self) -> tuple[float, ...]:
        """Log of each candidate's mean likelihood without content, for `offsets`."""
        import numpy as np

        found = self.likelihoods(CONTENT_FREE)
        means: list[float] = (np.logaddexp.reduce(found, axis=0) - np.log(len(found))).tolist()
        return tuple(means)

    def save(self, folder: Path) -> None:
        """Write the model, and read it back.

        Raises:
            CheckFailed: what was read back answers something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._write_weights(folder / WEIGHTS)
        self._write_adapter(folder / ADAPTER)
        facts = {
            "params": self.params.model_dump(mode="json"),
            "generation": self.generation.model_dump(mode="json"),
            "labels": self.labels,
            "candidates": self.candidates,
            "columns": self.columns,
            "offsets": self.offsets,
            "pieces": self.renderer.pieces,
            "leads": self.renderer.leads,
            "end": self.renderer.end,
            "limit": self.renderer.limit,
            "base": self._told(),
            "passed": self.passed,
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        self._check_saved(folder)

    def _write_weights(self, folder: Path) -> None:
        import torch

        kind = self.model.dtype
        rounded(self.model, torch.bfloat16)
        self.model.config.dtype = torch.bfloat16
        self.model.save_pretrained(folder)
        rounded(self.model, kind)
        self.renderer.tokenizer.save_pretrained(folder, save_jinja_files=False)

    def _write_adapter(self, folder: Path) -> None:
        from safetensors.torch import save_file

        if self.adapter is None:
            return
        folder.mkdir(exist_ok=True)
        save_file(dict(self.adapter.tensors), str(folder / "adapter_model.safetensors"))
        (folder / "adapter_config.json").write_text(self.adapter.config, encoding="utf-8")

    def _told(self) -> dict[str, str]:
        return {"name": self.base.name, "hash": model_hash(self.base)} if self.base and self.base.is_dir() else {}

    def _check_saved(self, folder: Path) -> None:
        import torch

        again = load_weights(folder / WEIGHTS, self.model.dtype)
        own, read = _probe(self.model, self.renderer), _probe(again, self.renderer)
        if not torch.equal(own, read):
            raise CheckFailed(
                "reload",
                f"the saved model answers otherwise: its logits differ by {float((own - read).abs().max()):.3g}.",
            )
        if self.adapter is None or self.base is None or not self.base.is_dir():
            return
        from peft import PeftModel

        base = PeftModel.from_pretrained(load_weights(self.base, torch.float32), str(folder / ADAPTER)).eval()
        gap = float((_probe(base, self.renderer) - own).std() / own.std())
        if not gap < ADAPTER_GAP:
            raise CheckFailed(
                "reload",
                f"the adapter on its base answers otherwise than the merged model: the logits are {gap:.1%} of their "
                "spread away. Lower lr or lora_alpha: weights this large do not survive being stored in bf16.",
            )


def _probe(model: Any, renderer: Renderer) -> Any:
    """(V,) logits behind a prompt."""
    import torch

    with torch.inference_mode():
        ids = torch.tensor([renderer.prompt("is this the model that was saved?").ids], device=model.device)
        return model(input_ids=ids, logits_to_keep=1).logits[0, -1].float().cpu()


def answered(found: NDArray[np.float64], columns: Sequence[int], labels: int, score: str) -> Outputs:
    """Probabilities and score of (N, C) log-likelihoods; in logs they are brought to about the spread of a cosine."""
    import numpy as np

    inside = [number for number, column in enumerate(columns) if column >= 0]
    outside = [number for number, column in enumerate(columns) if column < 0]
    probs = np.zeros((len(found), labels), np.float32)
    probs[:, [columns[number] for number in inside]] = scores.softmax(found[:, inside].astype(np.float32))
    shares = scores.softmax(found.astype(np.float32))
    if score == "max_prob":
        value = shares[:, inside].max(1)
    elif score == "margin":
        second = np.sort(shares, axis=1)[:, -2] if shares.shape[1] > 1 else np.zeros(len(shares))
        best = shares[:, inside].max(1)
        value = np.where(best >= shares.max(1), best - second, best - shares.max(1))
    else:
        whole = found[:, inside].max(1) if score == "likelihood" else np.logaddexp.reduce(found[:, inside], axis=1)
        rival = found[:, outside[0]] if outside else 0.0
        value = scores.LOG_PROB_SCALE * (whole - rival)
    return Outputs(probs, np.asarray(value, dtype=np.float32))


def load_language_model(folder: Path) -> LanguageModel:
    """Read what `LanguageModel.save` wrote."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    params = CausalLMParams.model_validate(facts["params"])
    pieces = tuple(None if piece is None else tuple(piece) for piece in facts["pieces"])
    return LanguageModel(
        model=load_weights(folder / WEIGHTS, answering_type(params)),
        renderer=Renderer(
            load_tokenizer(folder / WEIGHTS), pieces, tuple(facts["leads"]), facts["end"], facts["limit"]
        ),
        params=params,
        generation=Generation.model_validate(facts["generation"]),
        labels=facts["labels"],
        candidates=tuple(facts["candidates"]),
        columns=tuple(facts["columns"]),
        offsets=tuple(facts["offsets"]),
        adapter=_read_adapter(folder / ADAPTER),
        passed=tuple((method, weights) for method, weights in facts.get("passed", ())),
    )


def _read_adapter(folder: Path) -> Adapter | None:
    from safetensors.torch import load_file

    if not folder.is_dir():
        return None
    config = (folder / "adapter_config.json").read_text(encoding="utf-8")
    return Adapter(load_file(str(folder / "adapter_model.safetensors")), config)


def load_weights(folder: Path, kind: Any) -> Any:
    """A causal language model from local files, on the GPU where there is one, ready to answer."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=kind, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def load_quantised(folder: Path, bf16: bool) -> Any:
    """A causal language model whose linear layers are held in four bits (NF4 with quantised constants, Dettmers et al.
    2023, section 3), to train adapters on.

    Raises:
        UserError: the library that does it is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(
            "tune: qlora needs the library 'bitsandbytes', which is not installed. Install it with: "
            "pip install 'postgrad[quant]', or set tune: lora."
        )
    config: Any = BitsAndBytesConfig
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=torch.float32,
        quantization_config=config(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        ),
        device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def rounded(model: Any, kind: Any) -> Any:
    """The model with weights that are bf16 numbers, held as `kind`.

    Its buffers are left alone: positions whose frequencies were rounded would be others.
    """
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(kind)
    return model


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model, from local files."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def answering_type(params: CausalLMParams) -> Any:
    """The number format of a model that answers."""
    import torch

    return torch.bfloat16 if uses_bf16(params) else torch.float32


def uses_bf16(params: CausalLMParams) -> bool:
    """True where matrices are multiplied in bf16."""
    import torch

    if params.precision == "auto":
        return torch.cuda.is_available() or has_bf16()
    return params.precision == "bf16"
