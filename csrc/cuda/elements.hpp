// Entries of tensors in device memory: whole groups by accesses of 128 bits, and one at a time.
//
// A group is of 2, 4 or 8 entries, and starts at a multiple of its size in a tensor that is aligned to 16 bytes. Its values
// are exact in the lane T: float32, or float64 for any format. Where it is narrower than 128 bits, lanes that share 16
// bytes all load them, and one of them stores them for all.
#pragma once

#include "cuda/platform.hpp"
#include "formats/decode.hpp"
#include "ops/rounding_lanes.hpp"

namespace gradkern::cuda {

using formats::FormatId;
using formats::holder;

inline bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

// The bits of a group, indexed by constants only.
template <int count>
struct Words {
  std::uint32_t word[count];
};

template <int count>
__device__ __forceinline__ Words<count> load_words(const void* from) {
  Words<count> words;
  if constexpr (count >= 4) {
#pragma unroll
    for (int i = 0; i < count; i += 4) {
      const uint4 part = load_128(static_cast<const std::uint32_t*>(from) + i);
      words.word[i] = part.x;
      words.word[i + 1] = part.y;
      words.word[i + 2] = part.z;
      words.word[i + 3] = part.w;
    }
  } else {
    const auto place = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(from)) & 15;
    const uint4 all = load_128(static_cast<const unsigned char*>(from) - place);
    const uint2 half = place & 8 ? make_uint2(all.z, all.w) : make_uint2(all.x, all.y);
    words.word[0] = count == 1 && place & 4 ? half.y : half.x;
    if constexpr (count == 2) words.word[1] = half.y;
  }
  return words;
}

// A lane's words into global memory, where it has some: by all lanes of a warp, whose words are neighbours.
template <int count>
__device__ __forceinline__ void store_words(void* to, const Words<count>& words, bool mine = true) {
  if constexpr (count >= 4) {
    if (!mine) return;
#pragma unroll
    for (int i = 0; i < count; i += 4)
      store_global_128(static_cast<std::uint32_t*>(to) + i,
                       make_uint4(words.word[i], words.word[i + 1], words.word[i + 2], words.word[i + 3]));
  } else if (__all_sync(~0u, mine)) {
    // Lane l stores what begins at lane l 4 / count.
    constexpr int sharing = 4 / count;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    std::uint32_t all[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) all[i] = __shfl_sync(~0u, words.word[i % count], lane * sharing + i / count);
    if (lane < 32 / sharing)
      store_global_128(static_cast<std::uint32_t*>(to) + lane * (4 - count),
                       make_uint4(all[0], all[1], all[2], all[3]));
  } else if (mine) {
    if constexpr (count == 2) {
      store_64(to, make_uint2(words.word[0], words.word[1]));
    } else {
      store(static_cast<unsigned*>(to), words.word[0]);
    }
  }
}

// Whether a warp's groups of n all exist; `first`: of the thread's own.
template <int n>
__device__ __forceinline__ bool warp_is_whole(std::int64_t first, std::int64_t size) {
  return (first | (32 * n - 1)) < size;
}

// Whether all entries in the 16 bytes around entry `first` exist, whatever the format.
__device__ __forceinline__ bool is_whole(std::int64_t first, std::int64_t size) { return (first | 15) < size; }

__device__ __forceinline__ double double_of_words(std::uint32_t low, std::uint32_t high) {
  return base::bit_cast<double>((std::uint64_t(high) << 32) | low);
}

// A group in the lane type, as it is.
template <int n>
__device__ __forceinline__ void store_values(float* to, const float (&x)[n]) {
#pragma unroll
  for (int k = 0; k < n; k += 4)
    store_128(to + k, base::bit_cast<uint4>(make_float4(x[k], x[k + 1], x[k + 2], x[k + 3])));
}
template <int n>
__device__ __forceinline__ void store_values(double* to, const double (&x)[n]) {
#pragma unroll
  for (int k = 0; k < n; k += 2) store_128(to + k, base::bit_cast<uint4>(make_double2(x[k], x[k + 1])));
}

template <int n>
__device__ __forceinline__ void load_values(const float* from, float (&x)[n]) {
#pragma unroll
  for (int k = 0; k < n; k += 4) {
    const float4 four = base::bit_cast<float4>(load_128(from + k));
    x[k] = four.x, x[k + 1] = four.y, x[k + 2] = four.z, x[k + 3] = four.w;
  }
}
template <int n>
__device__ __forceinline__ void load_values(const double* from, double (&x)[n]) {
#pragma unroll
  for (int k = 0; k < n; k += 2) {
    const double2 two = base::bit_cast<double2>(load_128(from + k));
    x[k] = two.x, x[k + 1] = two.y;
  }
}

// Every entry moves down by one place, x comes in at the end: a loop that is not unrolled takes them one by one.
template <int n, class T>
__device__ __forceinline__ void shift_in(T (&entries)[n], T x) {
#pragma unroll
  for (int k = 0; k + 1 < n; ++k) entries[k] = entries[k + 1];
  entries[n - 1] = x;
}

// How often a loop over the entries of a lane type is unrolled: two formulas in float64 take too many registers.
template <class T>
inline constexpr int entries_at_once = sizeof(T) == 4 ? 8 : 1;

// The bits of a whole group of F: pattern by pattern, from the low bits up.
template <class F, int count>
inline constexpr int group_words = count * static_cast<int>(sizeof(typename F::container)) / 4;

// Entry k of a group; where F has 16 bits or fewer, other entries are above it.
template <class F, int count>
__device__ __forceinline__ std::int32_t pattern_at(const Words<count>& words, int k) {
  constexpr int bits = 8 * static_cast<int>(sizeof(typename F::container)), each = 32 / bits;
  return static_cast<std::int32_t>(words.word[k / each] >> (bits * (k % each)));
}

// Puts a pattern, sign-extended or not, at entry k; entries are put in their order.
template <class F, int count>
__device__ __forceinline__ void put_pattern(Words<count>& words, int k, std::int32_t pattern) {
  constexpr int bits = 8 * static_cast<int>(sizeof(typename F::container)), each = 32 / bits;
  const std::uint32_t mask = bits == 32 ? ~std::uint32_t(0) : (std::uint32_t(1) << (bits % 32)) - 1;
  const std::uint32_t value = (static_cast<std::uint32_t>(pattern) & mask) << (bits * (k % each));
  words.word[k / each] = k % each == 0 ? value : words.word[k / each] | value;
}

// The same where it is not known which entry it is: the patterns before it move down.
template <class F, int count>
__device__ __forceinline__ void shift_in_pattern(Words<count>& words, std::uint64_t pattern) {
  constexpr int bits = 8 * static_cast<int>(sizeof(typename F::container)), step = bits == 64 ? 2 : 1;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const std::uint32_t next =
        i + step < count ? words.word[i + step] : static_cast<std::uint32_t>(pattern >> 32 * (i + step - count));
    words.word[i] = bits >= 32 ? next : words.word[i] >> bits % 32 | next << (32 - bits) % 32;
  }
}

// The patterns of a group one after another, each stored with those that share its 16 bytes, by all lanes of a warp.
template <class F>
struct Patterns {
  using C = typename F::container;
  static constexpr int together = sizeof(C) == 8 ? 2 : 4;
  Words<group_words<F, together>> words{};

  // Entry k of the group at `to`.
  __device__ __forceinline__ void add(void* to, int k, std::uint64_t pattern) {
    shift_in_pattern<F>(words, pattern);
    if (k % together == together - 1) store_words(static_cast<C*>(to) + k / together * together, words);
  }
};

template <class F, int n, class T>
__device__ __forceinline__ void load_group_of(const void* data, std::int64_t first, T (&x)[n]) {
  const auto words = load_words<group_words<F, n>>(static_cast<const typename F::container*>(data) + first);
#pragma unroll
  for (int k = 0; k < n; ++k) {
    if constexpr (F::id == FormatId::float64) {
      x[k] = static_cast<T>(double_of_words(words.word[2 * k], words.word[2 * k + 1]));
    } else if constexpr (sizeof(typename F::container) == 4) {
      x[k] = ops::from_bits<float>(static_cast<std::int32_t>(words.word[k]));
    } else {
      x[k] = ops::value_of<F, float>(pattern_at<F>(words, k));
    }
  }
}

// The group at `first`. float64 fits no float32 lane.
template <int n, class T>
__device__ __forceinline__ void load_group(FormatId format, const void* data, std::int64_t first, T (&x)[n]) {
  switch (format) {
    case FormatId::float16:
      return load_group_of<formats::float16>(data, first, x);
    case FormatId::bfloat16:
      return load_group_of<formats::bfloat16>(data, first, x);
    case FormatId::float8_e4m3fn:
      return load_group_of<formats::float8_e4m3fn>(data, first, x);
    case FormatId::float8_e5m2:
      return load_group_of<formats::float8_e5m2>(data, first, x);
    case FormatId::float64:
      if constexpr (sizeof(T) == 8) return load_group_of<formats::float64>(data, first, x);
      [[fallthrough]];
    default:
      return load_group_of<formats::float32>(data, first, x);
  }
}

// The same, into memory of the lane type.
template <int n, class T>
__device__ __forceinline__ void load_into(FormatId format, const void* data, std::int64_t first, T* to) {
  T x[n];
  load_group(format, data, first, x);
  store_values(to, x);
}

// One entry, the sign of a NaN kept, which the device's conversions drop.
template <class F>
__device__ __forceinline__ double load_entry_of(const void* data, std::int64_t index) {
  const auto bits = load(static_cast<const typename F::container*>(data) + index);
  const double x = formats::decode<F>(bits);
  if constexpr (sizeof(typename F::container) == 4)
    return x == x ? x : ops::copysign(__builtin_nan(""), bits >> 31 ? -1.0 : 1.0);
  return x;
}

__device__ __forceinline__ double load_entry(FormatId format, const void* data, std::int64_t index) {
  switch (format) {
    case FormatId::float64:
      return load_entry_of<formats::float64>(data, index);
    case FormatId::float16:
      return load_entry_of<formats::float16>(data, index);
    case FormatId::bfloat16:
      return load_entry_of<formats::bfloat16>(data, index);
    case FormatId::float8_e4m3fn:
      return load_entry_of<formats::float8_e4m3fn>(data, index);
    case FormatId::float8_e5m2:
      return load_entry_of<formats::float8_e5m2>(data, index);
    default:
      return load_entry_of<formats::float32>(data, index);
  }
}

// The entry that was loaded as x, with the sign of a NaN.
template <class T>
__device__ __forceinline__ double exact_entry(FormatId format, const void* data, std::int64_t index, T x) {
  return x == x ? static_cast<double>(x) : load_entry(format, data, index);
}

}  // namespace gradkern::cuda
