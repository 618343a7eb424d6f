// One chunk of ops/statistics.hpp, read from storage.
#pragma once

#include "cpu/kernels.hpp"
#include "formats/decode.hpp"
#include "ops/statistics.hpp"

namespace gradkern::cpu {
namespace {

void measure(const executor::StatisticsArgs& args, std::int64_t begin, std::int64_t end, ops::Statistics& result) {
  formats::visit(args.format, [&](auto format) {
    using F = decltype(format);
    const auto* data = static_cast<const typename F::container*>(args.data);
    ops::measure_chunk(
        result, [&](std::int64_t i) { return formats::decode<F>(data[i]); }, begin, end,
        formats::exp2i(formats::Layout<F>::min_exponent));
  });
}

}  // namespace
}  // namespace gradkern::cpu
