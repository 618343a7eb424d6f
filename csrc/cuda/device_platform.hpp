// cuda/platform.hpp for GPUs: CUDA's runtime, and the PTX instructions that have no CUDA C++ name.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cuda/device_tensor_core.hpp"
#include "formats/format.hpp"

#define DYNAMIC_SHARED(T, name)                                             \
  extern __shared__ __align__(128) unsigned char gradkern_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(gradkern_dynamic_shared)

namespace gradkern::cuda {

using stream_t = cudaStream_t;

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t dynamic_bytes, stream_t stream,
           Arguments... arguments) {
  if (dynamic_bytes > 48 << 10) {
    const cudaError_t refused =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(dynamic_bytes));
    if (refused != cudaSuccess) {
      cudaGetLastError();  // said here, not by the next launch
      return refused;
    }
  }
  kernel<<<grid, block, dynamic_bytes, stream>>>(arguments...);
  return cudaGetLastError();
}

inline const char* launch_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

template <class T>
struct identity {
  using type = T;
};

// A pointer out of a list in memory, which the compiler cannot tell from one to shared memory.
template <class T>
__device__ __forceinline__ T* in_global(T* p) {
  __builtin_assume(__isGlobal(p));
  return p;
}

template <class T>
__device__ __forceinline__ T load(const T* from) {
  return *from;
}
template <class T>
__device__ __forceinline__ void store(T* to, const typename identity<T>::type& value) {
  *to = value;
}
__device__ __forceinline__ uint2 load_64(const void* from) { return *static_cast<const uint2*>(from); }
__device__ __forceinline__ uint4 load_128(const void* from) { return *static_cast<const uint4*>(from); }
__device__ __forceinline__ void store_64(void* to, uint2 value) { *static_cast<uint2*>(to) = value; }
__device__ __forceinline__ void store_128(void* to, uint4 value) { *static_cast<uint4*>(to) = value; }

// threadIdx.x, read anew: it waits in no register.
__device__ __forceinline__ int thread_anew() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// x, which waits in a register: the compiler knows no other way to it.
__device__ __forceinline__ int kept(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// One instruction, whatever the compiler makes of stores around it.
__device__ __forceinline__ void store_global_128(void* to, uint4 value) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(to)), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}

__device__ __forceinline__ unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// 16 bytes go past the first-level cache, 8 and 4 through it.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, unsigned source_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
               : "memory");
}
// There or not: zeros where not.
__device__ __forceinline__ void cp_async_16_or_zero(void* shared, const void* global, bool there) {
  asm volatile(
      "{\n.reg .pred absent;\nsetp.eq.u32 absent, %2, 0;\n"
      "cp.async.cg.shared.global [%0], [%1], 16, absent;\n}"
      :
      : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(static_cast<unsigned>(there))
      : "memory");
}
__device__ __forceinline__ void cp_async_8(void* shared, const void* global, unsigned source_bytes = 8) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_4(void* shared, const void* global, unsigned source_bytes = 4) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <unsigned groups_left>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
}

// The device's NaN has every bit set; ours is the positive quiet one of formats/format.hpp.
template <class F>
__device__ __forceinline__ std::uint16_t canonical_nan(std::uint16_t bits) {
  using L = formats::Layout<F>;
  return (bits & (L::sign - 1)) > L::infinity ? static_cast<std::uint16_t>(L::quiet_nan) : bits;
}

// Exact; a NaN is one, whatever its bits.
__device__ __forceinline__ float float_of_f16(std::uint16_t x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x));
  return value;
}
__device__ __forceinline__ std::uint16_t fma_f16(std::uint16_t x, std::uint16_t y, std::uint16_t z) {
  std::uint16_t result;
  asm("fma.rn.f16 %0, %1, %2, %3;" : "=h"(result) : "h"(x), "h"(y), "h"(z));
  return canonical_nan<formats::float16>(result);
}
// Of two float16 in a word each, both rounded once; a NaN is one, whatever its bits.
__device__ __forceinline__ std::uint32_t add_f16x2(std::uint32_t x, std::uint32_t y) {
  std::uint32_t sum;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(sum) : "r"(x), "r"(y));
  return sum;
}
__device__ __forceinline__ std::uint16_t fma_bf16(std::uint16_t x, std::uint16_t y, std::uint16_t z) {
  std::uint16_t result;
  asm("fma.rn.bf16 %0, %1, %2, %3;" : "=h"(result) : "h"(x), "h"(y), "h"(z));
  return canonical_nan<formats::bfloat16>(result);
}

}  // namespace gradkern::cuda
