// Loops work on blocks small enough for L1: decode a block once, then evaluate on plain lanes, whatever the format was.
#pragma once

#include "cpu/kernels.hpp"
#include "formats/decode.hpp"

namespace gradkern::cpu {
namespace {

inline constexpr std::int64_t block_size = 512;

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

}  // namespace
}  // namespace gradkern::cpu
