// Statistics of tensors on a device. Their cells outweigh many a tensor: through one launch go as many as keep what it
// borrows within bounds.
#include "executor/device_statistics.hpp"

#include <algorithm>
#include <limits>

#include "executor/device_list.hpp"

namespace gradkern::executor {
namespace {

// What the statistics of several tensors may borrow at once of a device's memory; one tensor takes what it needs.
// Page-locked memory of the same size comes in powers of two, and has the tables of a launch, too.
constexpr std::int64_t most_borrowed = (32 << 20) - 4096, table_bytes = sizeof(StatisticsArgs) + 8;

// A group, cut before what a part borrows would exceed the bound. cost: bytes, of a tensor's index.
template <class Cost>
std::vector<Group> parts_of(const Group& group, Cost cost) {
  std::vector<Group> parts;
  std::int64_t borrowed = 0;
  for (const std::int64_t i : group) {
    const std::int64_t bytes = cost(i);
    if (parts.empty() || borrowed + bytes > most_borrowed) {
      parts.emplace_back();
      borrowed = 0;
    }
    parts.back().push_back(i);
    borrowed += bytes;
  }
  return parts;
}

std::int64_t copied_bytes(const Staging& staging, const StatisticsArgs& t) {
  return t.size == 0 || staging.on_device(t.data) ? 0 : t.size * container_bytes(t.format);
}

StatisticsArgs staged(Staging& staging, const StatisticsArgs& tensor) {
  StatisticsArgs t = tensor;
  t.data = staging.in(t.data, t.size * container_bytes(t.format));
  return t;
}

// gather(nth, statistics) for each of a group, then done; so many together on a thread.
template <class Gather>
void gather_group(const Group& group, std::int64_t together, const StatisticsDone& done, Gather gather) {
  base::parallel_for(base::chunk_count(count_of(group), together), [&](std::int64_t share) {
    const auto s = ops::make_statistics();
    for (std::int64_t nth = share * together; nth < std::min(count_of(group), (share + 1) * together); ++nth) {
      gather(nth, *s);
      done(group[static_cast<std::size_t>(nth)], *s);
    }
  });
}

// Chunk by chunk, in one launch.
template <class F>
struct ByChunk {
  static constexpr std::int64_t cells = BinadeRange<F>::cells;

  static std::int64_t borrowed(std::int64_t size) {
    constexpr auto chunk_bytes = static_cast<std::int64_t>(sizeof(StatisticsChunk));
    return table_bytes + cells * 8 + base::chunk_count(size, ops::statistics_chunk) * chunk_bytes;
  }

  static void measure(const Executor& e, const StatisticsArgs* tensors, const Group& group,
                      const StatisticsDone& done) {
    Staging staging(e);
    Block block(staging);
    Sent<StatisticsArgs> sent(block, group);
    const auto partials = block.add<StatisticsChunk>(chunks_of(tensors, group, ops::statistics_chunk));
    const auto rows = block.add<std::int64_t>(count_of(group) * cells);
    block.make();
    sent.put(tensors, group, ops::statistics_chunk, [&](const StatisticsArgs& t) { return staged(staging, t); });
    block.send(sent.last());
    block.clear(rows);
    const StatisticsList list{sent.where(), F::id, sent.tensors(), block.device(partials), block.device(rows)};
    if (list.where.chunks) staging.check(e.device->statistics(&list, staging.stream()), "statistics");
    block.fetch(partials);
    gather_group(group, 16, done, [&](std::int64_t nth, ops::Statistics& s) {
      const std::int64_t begin = sent.begin(nth), size = tensors[group[static_cast<std::size_t>(nth)]].size;
      gather_chunks<F>(block.host(partials) + begin, sent.end(nth) - begin, block.host(rows) + nth * cells, size, s);
    });
  }
};

// By pattern, in a launch for each tensor.
template <class F>
struct ByPattern {
  static constexpr std::int64_t patterns = std::int64_t(1) << (8 * sizeof(typename F::container));

  static std::int64_t borrowed(std::int64_t) { return table_bytes + patterns * 8; }

  static void measure(const Executor& e, const StatisticsArgs* tensors, const Group& group,
                      const StatisticsDone& done) {
    Staging staging(e);
    Block block(staging);
    const auto first = block.add<std::int64_t>(count_of(group));
    const auto counts = block.add<std::int64_t>(count_of(group) * patterns);
    block.make();
    std::fill_n(block.host(first), count_of(group), std::numeric_limits<std::int64_t>::max());
    block.send(first);
    block.clear(counts);
    for (std::int64_t nth = 0; nth < count_of(group); ++nth) {
      const StatisticsArgs t = staged(staging, tensors[group[static_cast<std::size_t>(nth)]]);
      staging.check(e.device->count_patterns(&t, block.device(counts) + nth * patterns, block.device(first) + nth,
                                             staging.stream()),
                    "statistics");
    }
    block.fetch(first);
    gather_group(group, 1, done, [&](std::int64_t nth, ops::Statistics& s) {
      gather_patterns<F>(block.host(counts) + nth * patterns, block.host(first)[nth], s);
    });
  }
};

template <class Way>
void measure_parts(const Executor& e, const StatisticsArgs* tensors, const Group& group, const StatisticsDone& done) {
  const Staging staging(e);
  const auto cost = [&](std::int64_t i) { return Way::borrowed(tensors[i].size) + copied_bytes(staging, tensors[i]); };
  for (const Group& part : parts_of(group, cost)) Way::measure(e, tensors, part, done);
}

}  // namespace

void device_statistics(const Executor& e, const StatisticsArgs* tensors, std::int64_t count,
                       const StatisticsDone& done) {
  const auto pattern = [&](std::int64_t i) {
    return formats::visit(tensors[i].format,
                          [&](auto f) { return ops::measured_by_pattern<decltype(f)>(tensors[i].size); });
  };
  for (const bool by_pattern : {false, true}) {
    for (const auto& [format, group] :
         by_format(tensors, count, [&](std::int64_t i) { return pattern(i) == by_pattern; })) {
      formats::visit(format, [&, &members = group](auto f) {  // clang 14 captures no structured binding
        using F = decltype(f);
        if (!by_pattern) {
          measure_parts<ByChunk<F>>(e, tensors, members, done);
        } else if constexpr (ops::counts_patterns<F>) {
          measure_parts<ByPattern<F>>(e, tensors, members, done);
        }
      });
    }
  }
}

}  // namespace gradkern::executor
