// stored[i] = encode(decode(source[i]) * scale), and the census of what that lost.
#pragma once

#include "cpu/block.inl.hpp"

namespace gradkern::cpu {
namespace {

template <class F>
void encode_block(const executor::ConvertArgs& args, const double* source, std::int64_t first, std::int64_t count,
                  ops::RoundingCounts& counts) {
  auto* stored = static_cast<typename F::container*>(args.stored);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t i = first + j;
    const double exact = source[j] * args.scale;
    const auto encoded = ops::encode_scaled<F>(source[j], exact, args.mode, formats::draw(args.mode, args.stream, i));
    stored[i] = encoded.bits;
    counts.record<F>(exact, encoded, i);
  }
}

void convert(const executor::ConvertArgs& args, std::int64_t begin, std::int64_t end, ops::RoundingCounts& counts) {
  double source[block_size];
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    decode_block(args.source_format, args.source, first, count, source);
    formats::visit(args.format, [&](auto f) { encode_block<decltype(f)>(args, source, first, count, counts); });
  });
}

}  // namespace
}  // namespace gradkern::cpu
