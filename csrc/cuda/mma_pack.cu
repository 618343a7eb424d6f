// packed[tile of rows][tile of k][16 rows][32 bytes][lane] = 16 bytes of k, in the unit's format. One thread, one chunk.
#include "cuda/mma_pack.hpp"

#include "formats/encode.hpp"
#include "mma/units.hpp"

namespace gradkern::cuda {
namespace {

constexpr int pack_threads = 256;

template <class F>
constexpr int entries_in_chunk = 16 / static_cast<int>(sizeof(typename F::container));

constexpr std::int64_t tiles_of(std::int64_t count, std::int64_t tile) { return (count + tile - 1) / tile; }

// One entry as the unit multiplies it.
template <class F>
__device__ __forceinline__ std::uint32_t packed_entry(const MmaPack& pack, std::int64_t index) {
  if (pack.format == F::id) return load(reinterpret_cast<const typename F::container*>(pack.data) + index);
  return static_cast<std::uint32_t>(
      formats::encode<F>(load_value<double>(pack.format, pack.data, index), formats::Mode{}, 0).bits);
}

// Two float8 as float16, exactly.
__device__ __forceinline__ std::uint32_t widened(FormatId format, std::uint32_t two) {
  const auto wide = [&](std::uint32_t bits) -> std::uint32_t {
    const float x = format == FormatId::float8_e4m3fn ? decode_f32<formats::float8_e4m3fn>(bits)
                                                      : decode_f32<formats::float8_e5m2>(bits);
    return encode_exact<formats::float16>(x);
  };
  return wide(two & 0xFFu) | wide(two >> 8 & 0xFFu) << 16;
}

// A chunk whose entries all exist, by one load: of the same format, float32 for tfloat32, or float8 for float16.
template <class F>
__device__ __forceinline__ uint4 whole_chunk(const MmaPack& pack, std::int64_t row, int k, int chunk) {
  const std::int64_t index = row * pack.outer_stride;
  if constexpr (F::id == FormatId::float16) {
    if (pack.in_halves) {  // of 16 bytes, the first or the second pairs
      const uint4 x = load_128(pack.data + index + k);
      const int pair = chunk / 2 * 16;
      return make_uint4(widened(pack.format, x.x >> pair), widened(pack.format, x.y >> pair),
                        widened(pack.format, x.z >> pair), widened(pack.format, x.w >> pair));
    }
  }
  const uint4 x = load_128(pack.data + (index + k) * static_cast<std::int64_t>(sizeof(typename F::container)));
  if constexpr (F::id == FormatId::tfloat32) {
    if (pack.format != F::id)
      return make_uint4(round_tfloat32(x.x), round_tfloat32(x.y), round_tfloat32(x.z), round_tfloat32(x.w));
  }
  return x;
}

template <class F>
__global__ void __launch_bounds__(pack_threads) mma_pack_kernel(const MmaPack pack, const std::int64_t chunks) {
  constexpr int element = sizeof(typename F::container), in_chunk = entries_in_chunk<F>, depth = 4 * in_chunk;
  const std::int64_t id = std::int64_t(blockIdx.x) * pack_threads + threadIdx.x;
  if (id >= chunks) return;
  const int in_tile = static_cast<int>(id % (pack.tile * 4)), lane = in_tile % 32;
  const int row_half = pack.is_a ? lane / 8 & 1 : lane / 16, k_half = pack.is_a ? lane / 16 : lane / 8 & 1;
  const int line = in_tile / 64 * 16 + row_half * 8 + lane % 8, chunk = in_tile / 32 % 2 * 2 + k_half;
  const std::int64_t tile = id / (pack.tile * 4);
  const std::int64_t tiles_k = packed_tiles(pack.k, depth);
  const std::int64_t row = tile / tiles_k * pack.tile + line;
  const int first = static_cast<int>(tile % tiles_k) * depth;
  // The first of its entries; in halves, chunks of 16 entries have each a chunk of first pairs and one of second ones.
  const int k = first + (pack.in_halves ? chunk % 2 * 16 : chunk * in_chunk);
  uint4 bits;
  if (pack.vector && row < pack.outer && k + (pack.in_halves ? 16 : in_chunk) <= pack.k) {
    bits = whole_chunk<F>(pack, row, k, chunk);
  } else {
    std::uint64_t words[2] = {0, 0};
#pragma unroll 1
    for (int e = 0; e < in_chunk; ++e) {  // each comes in at the top
      const int at = k + (pack.in_halves ? e / 2 * 4 + chunk / 2 * 2 + e % 2 : e);
      const std::uint64_t entry =
          row < pack.outer && at < pack.k ? packed_entry<F>(pack, row * pack.outer_stride + at * pack.k_stride) : 0;
      constexpr int width = 8 * element;
      words[0] = words[0] >> width | words[1] << (64 - width);
      words[1] = words[1] >> width | entry << (64 - width);
    }
    bits = base::bit_cast<uint4>(ulonglong2{words[0], words[1]});
  }
  store_128(pack.packed + id * 16, bits);
}

template <class F>
std::int64_t chunks_of(const MmaPack& pack) {
  return tiles_of(pack.outer, pack.tile) * packed_tiles(pack.k, 4 * entries_in_chunk<F>) * pack.tile * 4;
}

template <class Body>
auto visit_unit(FormatId unit, Body body) {
  switch (unit) {
    case FormatId::float16:
      return body(formats::float16{});
    case FormatId::bfloat16:
      return body(formats::bfloat16{});
    case FormatId::tfloat32:
      return body(formats::tfloat32{});
    case FormatId::float8_e4m3fn:
      return body(formats::float8_e4m3fn{});
    default:
      return body(formats::float8_e5m2{});
  }
}

}  // namespace

std::int64_t packed_bytes(const MmaPack& pack, FormatId unit) {
  return visit_unit(unit, [&](auto f) { return 16 * chunks_of<decltype(f)>(pack); });
}

int mma_pack(const MmaPack& operand, FormatId unit, Stream stream) {
  return visit_unit(unit, [&](auto f) {
    using F = decltype(f);
    MmaPack pack = operand;
    const bool is_float8 = pack.format == FormatId::float8_e4m3fn || pack.format == FormatId::float8_e5m2;
    const bool rounded = F::id == FormatId::tfloat32 && pack.format == FormatId::float32;
    const bool direct = pack.in_halves ? is_float8 : pack.format == F::id || rounded;
    const std::int64_t bytes = pack.in_halves ? 1 : static_cast<std::int64_t>(sizeof(typename F::container));
    pack.vector = direct && pack.k_stride == 1 && pack.outer_stride * bytes % 16 == 0 &&
                  reinterpret_cast<std::uintptr_t>(pack.data) % 16 == 0;
    const std::int64_t chunks = chunks_of<F>(pack);
    if (chunks == 0) return 0;
    return launch(mma_pack_kernel<F>, dim3(static_cast<unsigned>(tiles_of(chunks, pack_threads))), dim3(pack_threads),
                  0, static_cast<stream_t>(stream), pack, chunks);
  });
}

}  // namespace gradkern::cuda
