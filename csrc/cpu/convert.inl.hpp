// stored[i] = encode(decode(source[i]) * scale), and the census of what that lost.
#pragma once

#include "cpu/block.inl.hpp"

namespace gradkern::cpu {
namespace {

template <class F>
void encode_block(const executor::ConvertArgs& args, const double* exact, std::int64_t first, std::int64_t count,
                  ops::RoundingCounts& counts) {
  auto* stored = static_cast<typename F::container*>(args.stored);
  const bool random = args.mode.rounding == formats::Rounding::stochastic;
  const std::uint64_t seed = random ? formats::random_bits(args.mode.seed, args.stream) : 0;
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t i = first + j;
    const std::uint64_t draw = random ? formats::random_bits(seed, static_cast<std::uint64_t>(i)) : 0;
    const auto encoded = formats::encode<F>(exact[j], args.mode, draw);
    stored[i] = encoded.bits;
    counts.record<F>(exact[j], encoded, i);
  }
}

void convert(const executor::ConvertArgs& args, std::int64_t begin, std::int64_t end, ops::RoundingCounts& counts) {
  double exact[block_size];
  for_blocks(begin, end, [&](std::int64_t first, std::int64_t count) {
    decode_block(args.source_format, args.source, first, count, exact);
    for (std::int64_t j = 0; j < count; ++j) exact[j] *= args.scale;
    formats::visit(args.format, [&](auto f) { encode_block<decltype(f)>(args, exact, first, count, counts); });
  });
}

}  // namespace
}  // namespace gradkern::cpu
