"""The table of rules: which words of which library speak for which cause, and why they do.

Order matters: the first rule that matches wins, so what is special stands above what is general. An exact rule is
looked for in every exception of a log, since a program may fail again while it cleans up; a general one in the last
exception first; a weak one counts only where neither numbers nor an exit code say more. Patterns are RE2: they are
held against text of others, which cannot make them slow.

To teach a cause, add a line here and, where the cause is new, one in `causes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from postgrad.records import Cause

Grade = Literal["exact", "general", "weak"]


@dataclass(frozen=True)
class Rule:
    """One pattern, and why it speaks for its cause; `within` has to be in a path of the traceback as well."""

    cause: Cause
    pattern: str
    why: str
    grade: Grade = "exact"
    within: str = ""


RULES: tuple[Rule, ...] = (
    # --- memory and disk: named by the allocator or the kernel
    Rule(
        "cuda_oom",
        r"CUDA out of memory|HIP out of memory|MPS backend out of memory|XPU out of memory|CUDA error: out of memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|No available memory for the cache blocks",
        "torch's caching allocator (c10/cuda/CUDACachingAllocator.cpp), cuBLAS, and vLLM's block manager",
    ),
    Rule(
        "host_oom",
        r"DefaultCPUAllocator: (?:can't|cannot|not enough)|_ArrayMemoryError|Unable to allocate .* for an array"
        r"|std::bad_alloc|ArrowMemoryError|(?i:cannot allocate memory)|can't allocate memory|\[Errno 12\]"
        r"|^MemoryError|(?i:oom-?kill)|Killed process \d+|out of shared memory|Detected \d+ oom",
        "torch, numpy, C++, Arrow, the kernel and Slurm say it in these words",
    ),
    Rule(
        "disk_full",
        r"No space left on device|\[Errno (?:28|27|122)\]|Disk quota exceeded|File too large|os error (?:27|28|122)\b"
        r"|database or disk is full|PytorchStreamWriter failed writing|File size limit exceeded",
        "ENOSPC, EFBIG and EDQUOT as Python, Rust, sqlite, torch and a shell write them",
    ),
    # --- processes that work together
    Rule(
        "distributed_init",
        r"EADDRINUSE|(?i:address already in use)|failed to listen on any local network address"
        r"|environment variable (?:RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|LOCAL_RANK) expected"
        r"|clients joined|Rendezvous(?:Connection|Timeout|Closed|State)?Error|(?i:waiting for clients)"
        r"|Default process group has not been initialized|The client socket has (?:failed|timed out)",
        "a rendezvous or a server that did not come up: c10d's TCPStore, torchrun, sockets",
    ),
    Rule(
        "node_lost",
        r"Connection closed by peer|Did the remote server shutdown or crash|Connection was likely closed"
        r"|ncclRemoteError|NODE_FAIL|NodeDiedError|ActorDiedError|RayActorError|WorkerCrashedError"
        r"|DUE TO NODE FAILURE|remote process exited or there was a network error",
        "a process of the same training is gone: gloo, NCCL, c10d's store, Ray and Slurm",
    ),
    Rule(
        "killed_by_signal",
        r"DataLoader worker \(pid.*\) (?:is killed by signal|exited unexpectedly)|BrokenProcessPool"
        r"|Fatal Python error: (?:Segmentation fault|Illegal instruction|Aborted|Bus error|Floating)"
        r"|terminated abruptly|terminate called after throwing|Signal \d+ \(SIG(?:SEGV|ABRT|BUS|ILL|FPE|KILL)\)",
        "a signal that a child process or the interpreter itself died of",
    ),
    Rule(
        "killed_by_signal",
        r"^(?:ConnectionResetError|EOFError|BrokenPipeError)",
        "a pipe between processes of one machine that ended in the middle",
        within=r"multiprocessing/(?:connection|queues|pool|resource_sharer)\.py",
    ),
    Rule(
        "preemption",
        r"DUE TO PREEMPTION|got signal: (?:15|1)$|(?i:\bpreempted\b)|(?i:(?:received|caught|got) (?:signal 15|sigterm))"
        r"|(?i:sigterm received)|(?i:spot instance interruption)",
        "Slurm, torchrun's agent, and handlers of SIGTERM",
    ),
    Rule(
        "hang",
        r"^Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!|Watchdog caught collective operation timeout",
        "faulthandler's watchdog, and NCCL's: a collective that one rank never entered",
    ),
    Rule("timeout", r"DUE TO TIME LIMIT|TimeoutExpired|^TimeoutError|(?i:wall-?clock limit)", "Slurm and Python"),
    # --- numbers
    Rule(
        "divergence",
        r"it has not fallen|OverflowError: (?:math range error|\(34, )|Floating-point under-/overflow occurred",
        "Postgrad's check of a third of the steps; exp of a loss that left the range; scikit-learn's SGD",
    ),
    Rule(
        "nan",
        r"probability tensor contains either|returned nan values in its|contains (?:NaN|infinity)"
        r"|must not contain infs or NaNs|loss scale already at minimum|Minimum loss scale reached"
        r"|(?i:loss (?:is|=|became|was) (?:nan|inf))|(?i:non-?finite)|(?i:not finite)|FloatingPointError",
        "torch's multinomial and anomaly mode, scikit-learn, scipy, loss scaling, and guards of trainers",
    ),
    Rule("dead_reward", r"(?i:all rewards are (?:zero|identical|the same))", "guards of trainers"),
    Rule("loss_spike", r"(?i:loss spike)", "guards of trainers"),
    # --- text: what is between rows and ids
    Rule(
        "chat_template",
        r"chat_template|(?i:chat template)|jinja2\.exceptions|TemplateSyntaxError|UndefinedError"
        r"|(?i:conversation roles must)|\{% generation %\}|(?i:system role not supported)",
        "transformers' apply_chat_template, and Jinja, which nothing else in a training uses",
    ),
    Rule(
        "corrupt_model_file",
        r"SafetensorError|deserializing header|PytorchStreamReader failed|failed finding central directory"
        r"|UnpicklingError|invalid load key|invalid magic number|GGUF magic|is not a valid JSON file"
        r"|Ran out of input|Consistency check failed|BadZipFile|(?i:checksum mismatch)|file not fully covered",
        "what readers of weights say of a file that was cut off or is another",
    ),
    Rule(
        "permission",
        r"GatedRepoError|(?:401|403) Client Error|Access to model .* is restricted",
        "the model hub refuses whoever asks",
    ),
    Rule(
        "hub_offline",
        r"OfflineModeIsEnabled|LocalEntryNotFoundError|We couldn't connect to|(?i:outgoing traffic has been disabled)"
        r"|(?i:offline mode is enabled)|Name or service not known|Temporary failure in name resolution"
        r"|MaxRetryError|Network is unreachable|is not a valid model identifier|RepositoryNotFoundError"
        r"|DatasetNotFoundError|reach the Hub|on the Hub",
        "huggingface_hub, transformers, datasets and resolvers without a network",
    ),
    Rule(
        "tokenizer",
        r"IndexError: index out of range in self|srcIndex < srcSelectDimSize|does not have a padding token"
        r"|TextEncodeInput|TextInputSequence|PreTokenized|untagged enum|(?i:from the vocabulary)"
        r"|activate truncation and/or padding|(?i:backend tokenizer)|piece id is out of range|(?i:load tokenizer)",
        "ids that the embedding has no row for, and what tokenizers say of texts and of their own files",
    ),
    # --- the environment
    Rule(
        "version",
        r"is required for a normal functioning of this module|VersionConflict|(?i:version conflict)"
        r"|was removed in the NumPy|bad magic number in|numpy\.dtype size changed|undefined symbol|GLIBC\S* not found"
        r"|compiled using NumPy|(?i:incompatible versions?)|(?:>=|==|<=|~=)\s?\d[\w.]*.*\b(?:found|have|installed)\b",
        "transformers' and pip's checks, numpy's removals, byte code and binaries of another version",
    ),
    Rule(
        "import",
        r"ModuleNotFoundError|No module named|cannot import name|cannot open shared object file"
        r"|requires the .* library but it was not found",
        "Python's import system, the dynamic linker, transformers' requires_backends",
    ),
    Rule("import", r"ImportError", "what is left of import errors", "general"),
    Rule(
        "permission",
        r"\[Errno (?:13|1|30)\]|PermissionError|Permission denied|Read-only file system|Operation not permitted",
        "EACCES, EPERM and EROFS",
    ),
    # --- data and arguments
    Rule(
        "bad_argument",
        r"unexpected keyword argument|unrecognized arguments|error: argument |arguments are required|invalid choice"
        r"|Target modules .* not found|Invalid (?:learning rate|beta|eps|weight_decay|momentum|device string)"
        r"|(?i:must be (?:evenly )?divisible|not divisible)|extra_forbidden|validation errors? for \w*(?:Params|Config|"
        r"Arg\w*|Settings)|Params are not valid",
        "signatures, argparse, pydantic models of settings, and checks of torch, PEFT and TRL",
    ),
    Rule(
        "shape_mismatch",
        r"shapes cannot be multiplied|must have the same dtype|size mismatch for|stack expects each tensor"
        r"|(?i:sizes? of tensors? .* must match)|must match the size of tensor|expected scalar type"
        r"|is invalid for input|inhomogeneous shape|could not be broadcast|Error\(s\) in loading state_dict"
        r"|Expected input batch_size|not aligned|Dimension out of range",
        "torch and numpy on tensors that do not fit",
    ),
    Rule(
        "bug",
        r"(?i:can(?:not|'t) (?:get local object|pickle))|modified by an inplace operation|does not require grad"
        r"|backward through the graph a second time|device-side assert|illegal memory access"
        r"|to be on the same device|maximum recursion depth",
        "pickle, autograd and CUDA on programs that are wrong",
    ),
    Rule(
        "data_schema",
        r"CastError|(?i:couldn't cast)|ArrowInvalid|JSON parse error|JSONDecodeError|UnicodeDecodeError|ParserError"
        r"|Usecols do not match|not in the dataset|_csv\.Error|validation errors? for|DataFilesNotFoundError"
        r"|No train row with|(?i:column names?)|(?i:missing (?:column|field|key))|(?i:unsupported dataset format)",
        "datasets, Arrow, pandas, JSON, csv and pydantic on rows that are not as they were said to be",
    ),
    Rule(
        "missing_file",
        r"FileNotFoundError|No such file or directory|\[Errno 2\]|does not appear to have a file named|no file named"
        r"|can't open file|Unrecognized model in|command not found|Parent directory .* does not exist",
        "ENOENT, and transformers on folders without a model",
    ),
    # --- general words
    Rule(
        "hub_offline",
        r"(?:https?://|URLError|HTTPError|ConnectError|ConnectTimeout|ProxyError)",
        "a request",
        "general",
    ),
    Rule("node_lost", r"(?i:connection reset|broken pipe|connection refused)", "a peer that is gone", "general"),
    Rule("timeout", r"(?i:timed out|time ?out)", "something took longer than it may", "general"),
    Rule("tokenizer", r"(?i:tokeniz|vocab)", "an exception about tokens", "general"),
    Rule("divergence", r"(?i:diverg)", "a guard of a trainer", "general"),
    Rule("nan", r"(?i:\bnan\b)", "an exception about NaN", "general"),
    Rule("data_schema", r"^KeyError|(?i:column|schema|dataset)", "a field that a row lacks", "general"),
    Rule(
        "bad_argument", r"^ValueError: .*(?:must be|should be|expected|invalid)", "a value that is refused", "general"
    ),
    Rule(
        "bug",
        r"^(?:Assertion|Attribute|Name|UnboundLocal|Type|Index|ZeroDivision|Recursion|Syntax|Indentation|Tab|Pickling|"
        r"NotImplemented|Lookup|StopIteration|Arithmetic)Error|^SyntaxError",
        "an exception that a correct program does not raise",
        "weak",
    ),
)

#: Words of shells and launchers on a line of their own: no exception, so only the last lines are looked at.
LAST_LINES: tuple[Rule, ...] = (
    Rule(
        "killed_by_signal",
        r"(?:Segmentation fault|Illegal instruction|Bus error|Aborted|Floating point exception)",
        "a shell",
    ),
    Rule("host_oom", r"(?i:out of memory)", "a launcher"),
)


@cache
def compiled(pattern: str) -> Any:
    """The pattern for RE2: time linear in the text, whatever the text."""
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)
