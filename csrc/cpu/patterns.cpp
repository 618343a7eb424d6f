#include "cpu/patterns.hpp"

#include <algorithm>
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

template <class F>
std::int64_t find_nonfinite(const typename F::container* x, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i)
    if (!(ops::abs(formats::decode<F>(x[i])) < __builtin_inf())) return i;
  return -1;
}

}  // namespace

void measure_by_pattern(const executor::StatisticsArgs& args) {
  formats::visit(args.format, [&](auto f) {
    using F = decltype(f);
    using T = typename F::container;
    if constexpr (ops::counts_patterns<F>) {
      const auto* x = static_cast<const T*>(args.data);
      ops::Statistics& s = *args.result;
      ops::statistics_of_patterns<F>(count_all(x, args.size).data(), s);
      if (s.nan + s.pos_inf + s.neg_inf) s.first_nonfinite = find_nonfinite<F>(x, args.size);
    }
  });
}

}  // namespace gradkern::cpu
