"""The parts that are compiled; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup


def compiled(name: str, source: str) -> Extension:
    """Without a C++ compiler the package installs all the same, scores in plain torch and reads in plain Python."""
    return Extension(
        name,
        [source],
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


setup(
    ext_modules=[
        compiled("ecgbatch.models.kernels._kernel", "ecgbatch/models/kernels/kernel.cpp"),
        compiled("ecgbatch.records._reader", "ecgbatch/records/native/reader.cpp"),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
