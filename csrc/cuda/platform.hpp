// What every kernel of csrc/cuda is written in. nvcc compiles the kernels for GPUs; a host compiler compiles the same
// files against csrc/simt, which runs each CUDA thread as a fiber. Kernels hold no #ifdef and no asm.
//
// Plain CUDA (global names):
//   __global__ __device__ __host__ __forceinline__ __launch_bounds__ __restrict__ __shared__ __align__
//   threadIdx blockIdx blockDim gridDim
//   __syncthreads __syncthreads_{or,and,count} __syncwarp __threadfence __threadfence_block __nanosleep
//   __shfl_sync __shfl_up_sync __shfl_down_sync __shfl_xor_sync      int, unsigned, (unsigned) long long, float, double
//   __ballot_sync __any_sync __all_sync __match_any_sync __activemask
//   __reduce_{add,min,max,and,or,xor}_sync                           unsigned
//   atomic{Add,Min,Max,Or,And,Exch,CAS}                              int, unsigned, unsigned long long; never float
//   __popc __popcll __clz __clzll __ffs __ffsll __brev __umulhi __ldg min max fma fmaf
//   __float_as_uint __float_as_int __uint_as_float __int_as_float __double_as_longlong __longlong_as_double
//   int2 int4 uint2 uint3 uint4 float2 float4 double2 ulonglong2 dim3, make_*
//
// In gradkern::cuda:
//   stream_t
//   DYNAMIC_SHARED(T, name)                     T* name: the dynamic shared memory, 128 bytes aligned
//   launch(kernel, grid, block, dynamic_shared_bytes, stream, arguments...) -> 0 or an error; launch_error(error)
//   thread_anew(), kept(x)                       threadIdx.x and x, not to be kept in a register, and to be
//   in_global(p)                                 p, known to point to global memory
//   load_64, load_128 (from), store_64, store_128, store_global_128 (to, value); load(from), store(to, value)
//   cp_async_16, _8, _4 (shared, global, source_bytes = all): the rest becomes zero
//   cp_async_16_or_zero (shared, global, there)
//   cp_async_commit(), cp_async_wait<groups_left>()
//   ldmatrix_x1, _x2, _x4, and _trans (registers, row)
//   mma_m16n8k16<F>, mma_m16n8k8<F>, mma_m16n8k4<tfloat32>, mma_m16n8k32<A, B> (d, a, b, c); F, A, B from
//     formats/format.hpp; a, b arrays of uint32_t; c, d float[4], or uint32_t[2] that hold float16
//   add_f16x2 (x, y) of two float16 in a word each
//   fma_f16, fma_bf16 (x, y, z) on bits: one rounding, subnormals kept, every NaN the positive quiet one
#pragma once

#if defined(__CUDACC__)
#include "cuda/device_platform.hpp"
#else
#include "simt/platform.hpp"
#endif
