// Loops work on blocks small enough for L1: decode a block once, then evaluate on plain lanes, whatever the format was.
#pragma once

#include "cpu/kernels.hpp"
#include "formats/decode.hpp"
#include "ops/rounding_lanes.hpp"
#include "simd/widths.hpp"

namespace gradkern::cpu {
namespace {

using simd::vec_f32;
using simd::vec_f64;

inline constexpr std::int64_t block_size = 512;

// Reductions have 16 logical lanes: a group of elements, held in so many vectors.
inline constexpr int group = ops::rounding_lanes;
inline constexpr int group_f64 = group / (simd::vector_bytes / 8);
inline constexpr int group_f32 = group / (simd::vector_bytes / 4);

// body(first, count) for each block of [begin, end).
template <class Body>
GRADKERN_HD void for_blocks(std::int64_t begin, std::int64_t end, Body body) {
  for (std::int64_t i = begin; i < end; i += block_size) body(i, end - i < block_size ? end - i : block_size);
}

// lanes[j] = stored[first + j], exact in T.
template <class T>
void decode_block(formats::FormatId format, const void* stored, std::int64_t first, std::int64_t count, T* lanes) {
  formats::visit(format, [&](auto f) {
    using F = decltype(f);
    const auto* data = static_cast<const typename F::container*>(stored) + first;
    for (std::int64_t j = 0; j < count; ++j) lanes[j] = static_cast<T>(formats::decode<F>(data[j]));
  });
}

// A vector of any narrow format as float32.
template <class F>
GRADKERN_HD vec_f32 widen_lanes(const typename F::container* stored) {
  if constexpr (simd::has_f16 && F::id == formats::FormatId::float16) {
    return simd::widen_f16(stored);
  } else {
    return ops::value_of<F, vec_f32>(simd::load_lanes(stored));
  }
}

// Whole groups of vectors.
template <class F>
void widen_f32(const typename F::container* stored, std::int64_t count, float* x) {
  constexpr int lanes = group / group_f32;
  for (std::int64_t j = 0; j < count; j += lanes) {
    simd::prefetch_page(stored + j);
    widen_lanes<F>(stored + j).store(x + j);
  }
}

// The same as float64.
template <class F>
void widen_f64(const typename F::container* stored, std::int64_t count, double* x) {
  constexpr int lanes = simd::vector_bytes / 8;
  for (std::int64_t j = 0; j < count; j += group) {
    alignas(64) float narrow[group];
    const float* from = narrow;
    if constexpr (F::id == formats::FormatId::float32) {
      simd::prefetch_page(stored + j);
      from = reinterpret_cast<const float*>(stored + j);
    } else {
      widen_f32<F>(stored + j, group, narrow);
    }
    for (int i = 0; i < group; i += lanes) simd::widen(from + i).store(x + j + i);
  }
}

// lanes[j] = stored[begin + j], exact in T: whole groups of what fits float32 in vectors.
template <class T>
void widen(formats::FormatId format, const void* stored, std::int64_t begin, std::int64_t end, T* lanes) {
  const std::int64_t whole = format == formats::FormatId::float64 ? 0 : (end - begin) / group * group;
  formats::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::id != formats::FormatId::float64) {
      const auto* data = static_cast<const typename F::container*>(stored) + begin;
      if constexpr (sizeof(T) == 4) {
        widen_f32<F>(data, whole, lanes);
      } else {
        widen_f64<F>(data, whole, lanes);
      }
    }
  });
  decode_block(format, stored, begin + whole, end - begin - whole, lanes + whole);
}

}  // namespace
}  // namespace gradkern::cpu
