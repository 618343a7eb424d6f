#include "cpu/patterns.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/thread_pool.hpp"
#include "ops/patterns.hpp"

namespace gradkern::cpu {
namespace {

constexpr std::int64_t span_limit = std::int64_t(1) << 32;  // what a table of 32 bits can count
constexpr std::int64_t worth_threads = std::int64_t(1) << 16;
constexpr std::int64_t fetch_ahead = 2048;  // bytes

// Incrementing a counter again before the last increment is done waits for it: consecutive entries go to different
// tables.
constexpr int patterns = 256, tables = 4;
struct Tables {
  std::uint32_t counts[tables][patterns] = {};
};

void count_patterns(const std::uint8_t* x, std::int64_t size, Tables& found) {
  constexpr std::int64_t together = 64;
  std::int64_t i = 0;
  for (; i + together <= size; i += together) {
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(x + i) + fetch_ahead));
#pragma GCC unroll 8
    for (std::int64_t w = 0; w < together; w += 8) {
      std::uint64_t word;
      __builtin_memcpy(&word, x + i + w, sizeof word);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) ++found.counts[j % tables][word >> (8 * j) & 0xFF];
    }
  }
  for (; i < size; ++i) ++found.counts[0][x[i]];
}

// The sum over spans and tables, per pattern.
std::vector<std::int64_t> count_all(const std::uint8_t* x, std::int64_t size) {
  const std::int64_t threads = size < worth_threads ? 1 : base::num_threads();
  const std::int64_t spans = std::max(threads, (size + span_limit - 1) / span_limit);
  std::vector<Tables> found(static_cast<std::size_t>(spans));
  base::parallel_for(spans, [&](std::int64_t span) {
    const std::int64_t begin = size * span / spans, count = size * (span + 1) / spans - begin;
    count_patterns(x + begin, count, found[static_cast<std::size_t>(span)]);
  });
  std::vector<std::int64_t> counts(patterns);
  for (const Tables& of_span : found)
    for (const auto& table : of_span.counts)
      for (int i = 0; i < patterns; ++i) counts[static_cast<std::size_t>(i)] += table[i];
  return counts;
}

// Chunks are searched until the one before has it.
template <class F>
std::int64_t find_nonfinite(const std::uint8_t* x, std::int64_t size) {
  constexpr std::int64_t chunk = std::int64_t(1) << 16;
  using L = formats::Layout<F>;
  std::atomic<std::int64_t> found{size};
  base::parallel_for(base::chunk_count(size, chunk), [&](std::int64_t c) {
    const std::int64_t begin = c * chunk, end = std::min(size, begin + chunk);
    if (begin > found) return;
    std::uint8_t worst = 0;
    for (std::int64_t i = begin; i < end; ++i) worst = std::max<std::uint8_t>(worst, x[i] & (L::sign - 1));
    if (worst <= L::max_finite) return;
    std::int64_t i = begin;
    while ((x[i] & (L::sign - 1)) <= L::max_finite) ++i;
    for (std::int64_t before = found; i < before && !found.compare_exchange_weak(before, i);) {
    }
  });
  return found;
}

}  // namespace

void measure_by_pattern(const executor::StatisticsArgs& args, ops::Statistics& s) {
  formats::visit(args.format, [&](auto f) {
    using F = decltype(f);
    if constexpr (ops::counts_patterns<F>) {
      const auto* x = static_cast<const std::uint8_t*>(args.data);
      ops::statistics_of_patterns<F>(count_all(x, args.size).data(), s);
      if (s.nan + s.pos_inf + s.neg_inf) s.first_nonfinite = find_nonfinite<F>(x, args.size);
      ops::count_subnormals(s, formats::Layout<F>::min_exponent);
    }
  });
}

}  // namespace gradkern::cpu
