"""The parts that are compiled; everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup


def compiled(name: str, *sources: str) -> Extension:
    """Without a C++ compiler the package installs all the same, scores in plain torch and reads in plain Python."""
    folder = Path(sources[0]).parent
    return Extension(
        name,
        list(sources),
        depends=sorted(map(str, folder.glob("*.h"))),  # an edited header rebuilds what includes it
        optional=True,
        py_limited_api=True,
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        # Products are fused and sums ordered as the source says, never as the optimiser likes: a record's
        # numbers must not depend on how a function was inlined. Instruction sets are chosen at run time.
        extra_compile_args=[
            "-std=c++17",
            "-O3",
            "-g0",
            "-ffp-contract=off",
            "-fno-math-errno",
            "-fvisibility=hidden",
            "-Wno-uninitialized",
        ],
    )


KERNEL = "ecgbatch/models/kernels/cpu"

setup(
    ext_modules=[
        compiled(
            "ecgbatch.models.kernels._kernel",
            *(f"{KERNEL}/{source}.cpp" for source in ("module", "baseline", "avx2", "avx512")),
        ),
        compiled("ecgbatch.records._reader", "ecgbatch/records/native/reader.cpp"),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
