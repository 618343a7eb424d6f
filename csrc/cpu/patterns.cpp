#include "cpu/patterns.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "base/thread_pool.hpp"
#include "ops/patterns.hpp"

namespace gradkern::cpu {
namespace {

constexpr std::int64_t span_limit = std::int64_t(1) << 32;  // what a table of 32 bits can count
constexpr std::int64_t worth_threads = std::int64_t(1) << 16;
constexpr std::int64_t fetch_ahead = 2048;  // bytes

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Table = std::unique_ptr<std::uint32_t[], Free>;

// Zero pages that are not there until they are touched.
Table make_table(std::size_t size) {
  auto* table = static_cast<std::uint32_t*>(std::calloc(size, sizeof(std::uint32_t)));
  if (!table) throw std::bad_alloc();
  return Table(table);
}

// Incrementing a counter again before the last increment is done waits for it: consecutive entries go to different
// tables.
constexpr int tables = 4;

// Apart from a power of two, so that a pattern's counters lie in different sets of the cache.
template <class T>
constexpr std::int64_t table_stride = (std::int64_t(1) << (8 * sizeof(T))) + 32;

template <class T>
void count_patterns(const T* x, std::int64_t size, std::uint32_t* table) {
  constexpr std::int64_t stride = table_stride<T>, together = 64 / sizeof(T);
  constexpr int bits = 8 * sizeof(T), in_word = 64 / bits;
  std::int64_t i = 0;
  for (; i + together <= size; i += together) {
    __builtin_prefetch(reinterpret_cast<const char*>(x + i) + fetch_ahead);
#pragma GCC unroll 8
    for (std::int64_t w = 0; w < together; w += in_word) {
      std::uint64_t word;
      __builtin_memcpy(&word, x + i + w, sizeof word);
#pragma GCC unroll 8
      for (int j = 0; j < in_word; ++j) ++table[j % tables * stride + static_cast<T>(word >> (bits * j))];
    }
  }
  for (; i < size; ++i) ++table[x[i]];
}

// The sum over spans and tables, per pattern.
template <class T>
std::vector<std::int64_t> count_all(const T* x, std::int64_t size) {
  constexpr std::size_t patterns = std::size_t(1) << (8 * sizeof(T));
  const std::int64_t threads = size < worth_threads ? 1 : base::num_threads();
  const std::int64_t spans = std::max(threads, (size + span_limit - 1) / span_limit);
  std::vector<Table> found(static_cast<std::size_t>(spans));
  base::parallel_for(spans, [&](std::int64_t span) {
    const std::int64_t begin = size * span / spans, count = size * (span + 1) / spans - begin;
    auto& table = found[static_cast<std::size_t>(span)];
    table = make_table(tables * table_stride<T>);
    count_patterns(x + begin, count, table.get());
  });
  std::vector<std::int64_t> counts(patterns);
  for (const Table& table : found)
    for (int t = 0; t < tables; ++t)
      for (std::size_t i = 0; i < patterns; ++i) counts[i] += table[t * table_stride<T> + i];
  return counts;
}

// Chunks are searched until the one before has it.
template <class F>
std::int64_t find_nonfinite(const typename F::container* x, std::int64_t size) {
  constexpr std::int64_t chunk = std::int64_t(1) << 16;
  using L = formats::Layout<F>;
  using T = typename F::container;
  std::atomic<std::int64_t> found{size};
  base::parallel_for(base::chunk_count(size, chunk), [&](std::int64_t c) {
    const std::int64_t begin = c * chunk, end = std::min(size, begin + chunk);
    if (begin > found) return;
    T worst = 0;
    for (std::int64_t i = begin; i < end; ++i) worst = std::max<T>(worst, x[i] & (L::sign - 1));
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
      const auto* x = static_cast<const typename F::container*>(args.data);
      ops::statistics_of_patterns<F>(count_all(x, args.size).data(), s);
      if (s.nan + s.pos_inf + s.neg_inf) s.first_nonfinite = find_nonfinite<F>(x, args.size);
      ops::count_subnormals(s, formats::Layout<F>::min_exponent);
    }
  });
}

}  // namespace gradkern::cpu
