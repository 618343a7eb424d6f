// ldmatrix and mma.sync on GPUs; simt/tensor_core.hpp says how a warp holds the matrices.
#pragma once

#include <cstdint>
#include <type_traits>

#include "formats/format.hpp"

namespace gradkern::cuda {

__device__ __forceinline__ void ldmatrix_x1(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x1_trans(std::uint32_t (&r)[1], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
}

// One mma.sync: the shape and types as PTX says them, and the registers of d, a, b and c.
#define GRADKERN_MMA_FLOAT_4_2(shape_and_types)                                                                     \
  asm volatile("mma.sync.aligned." shape_and_types                                                                  \
               " "                                                                                                  \
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"                                \
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                     \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), \
                 "f"(c[3]))
#define GRADKERN_MMA_FLOAT_2_1(shape_and_types)                       \
  asm volatile("mma.sync.aligned." shape_and_types                    \
               " "                                                    \
               "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};" \
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])       \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]))
#define GRADKERN_MMA_HALF_4_2(shape_and_types)                   \
  asm volatile("mma.sync.aligned." shape_and_types               \
               " "                                               \
               "{%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%8, %9};" \
               : "=r"(d[0]), "=r"(d[1])                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]))
#define GRADKERN_MMA_HALF_2_1(shape_and_types)       \
  asm volatile("mma.sync.aligned." shape_and_types   \
               " "                                   \
               "{%0, %1}, {%2, %3}, {%4}, {%5, %6};" \
               : "=r"(d[0]), "=r"(d[1])              \
               : "r"(a[0]), "r"(a[1]), "r"(b[0]), "r"(c[0]), "r"(c[1]))

template <class F>
inline constexpr bool is_16_bit = F::id == formats::FormatId::float16 || F::id == formats::FormatId::bfloat16;
template <class F>
inline constexpr bool is_8_bit = F::id == formats::FormatId::float8_e4m3fn || F::id == formats::FormatId::float8_e5m2;
template <class F>
inline constexpr bool is_e4m3 = F::id == formats::FormatId::float8_e4m3fn;

template <class F>
  requires(is_16_bit<F>)
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                             const float (&c)[4]) {
  if constexpr (F::id == formats::FormatId::float16) {
    GRADKERN_MMA_FLOAT_4_2("m16n8k16.row.col.f32.f16.f16.f32");
  } else {
    GRADKERN_MMA_FLOAT_4_2("m16n8k16.row.col.f32.bf16.bf16.f32");
  }
}
template <class F>
  requires(F::id == formats::FormatId::float16)
__device__ __forceinline__ void mma_m16n8k16(std::uint32_t (&d)[2], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2], const std::uint32_t (&c)[2]) {
  GRADKERN_MMA_HALF_4_2("m16n8k16.row.col.f16.f16.f16.f16");
}
template <class F>
  requires(is_16_bit<F>)
__device__ __forceinline__ void mma_m16n8k8(float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1],
                                            const float (&c)[4]) {
  if constexpr (F::id == formats::FormatId::float16) {
    GRADKERN_MMA_FLOAT_2_1("m16n8k8.row.col.f32.f16.f16.f32");
  } else {
    GRADKERN_MMA_FLOAT_2_1("m16n8k8.row.col.f32.bf16.bf16.f32");
  }
}
template <class F>
  requires(F::id == formats::FormatId::float16)
__device__ __forceinline__ void mma_m16n8k8(std::uint32_t (&d)[2], const std::uint32_t (&a)[2],
                                            const std::uint32_t (&b)[1], const std::uint32_t (&c)[2]) {
  GRADKERN_MMA_HALF_2_1("m16n8k8.row.col.f16.f16.f16.f16");
}
template <class F>
  requires(F::id == formats::FormatId::tfloat32)
__device__ __forceinline__ void mma_m16n8k8(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                            const float (&c)[4]) {
  GRADKERN_MMA_FLOAT_4_2("m16n8k8.row.col.f32.tf32.tf32.f32");
}
template <class F>
  requires(F::id == formats::FormatId::tfloat32)
__device__ __forceinline__ void mma_m16n8k4(float (&d)[4], const std::uint32_t (&a)[2], const std::uint32_t (&b)[1],
                                            const float (&c)[4]) {
  GRADKERN_MMA_FLOAT_2_1("m16n8k4.row.col.f32.tf32.tf32.f32");
}
template <class A, class B = A>
  requires(is_8_bit<A> && is_8_bit<B>)
__device__ __forceinline__ void mma_m16n8k32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                             const float (&c)[4]) {
#if __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
  if constexpr (is_e4m3<A> && is_e4m3<B>) {
    GRADKERN_MMA_FLOAT_4_2("m16n8k32.row.col.f32.e4m3.e4m3.f32");
  } else if constexpr (is_e4m3<A>) {
    GRADKERN_MMA_FLOAT_4_2("m16n8k32.row.col.f32.e4m3.e5m2.f32");
  } else if constexpr (is_e4m3<B>) {
    GRADKERN_MMA_FLOAT_4_2("m16n8k32.row.col.f32.e5m2.e4m3.f32");
  } else {
    GRADKERN_MMA_FLOAT_4_2("m16n8k32.row.col.f32.e5m2.e5m2.f32");
  }
#else
  __trap();  // no such unit: Hopper and Blackwell multiply float16 instead (mma::Form::halves)
#endif
}
template <class A, class B = A>
  requires(is_8_bit<A> && is_8_bit<B>)
__device__ __forceinline__ void mma_m16n8k32(std::uint32_t (&d)[2], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2], const std::uint32_t (&c)[2]) {
#if __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200
  if constexpr (is_e4m3<A> && is_e4m3<B>) {
    GRADKERN_MMA_HALF_4_2("m16n8k32.row.col.f16.e4m3.e4m3.f16");
  } else if constexpr (is_e4m3<A>) {
    GRADKERN_MMA_HALF_4_2("m16n8k32.row.col.f16.e4m3.e5m2.f16");
  } else if constexpr (is_e4m3<B>) {
    GRADKERN_MMA_HALF_4_2("m16n8k32.row.col.f16.e5m2.e4m3.f16");
  } else {
    GRADKERN_MMA_HALF_4_2("m16n8k32.row.col.f16.e5m2.e5m2.f16");
  }
#else
  __trap();  // no such unit: Hopper and Blackwell multiply float16 instead (mma::Form::halves)
#endif
}

#undef GRADKERN_MMA_FLOAT_4_2
#undef GRADKERN_MMA_FLOAT_2_1
#undef GRADKERN_MMA_HALF_4_2
#undef GRADKERN_MMA_HALF_2_1

}  // namespace gradkern::cuda
