// Compiler facts that every layer shares.
//
// GRADKERN_HD marks a function that is compiled into every instruction set's object, and for the device.
// It is always inlined: an out-of-line copy would be a weak symbol, and the linker could hand AVX-512 code to an old
// processor.
#pragma once

#if defined(__CUDACC__)
#define GRADKERN_HD __host__ __device__ __forceinline__
#else
#define GRADKERN_HD inline __attribute__((always_inline))
#endif
