// The network and the cleaning by the instructions that every processor of this kind has.

#include "instruction_set.h"

#define WIDTH 4
#if defined(__aarch64__)
#define PANEL_VECTORS 4
#else
#define PANEL_VECTORS 2
#endif
#include "cleaning.h"
#include "scoring.h"

const InstructionSet BASELINE{"baseline", PANEL, [] { return true; }, score, clean};
