// Lists of tensors on a device: those of one format go through one launch, their chunks side by side; statistics, whose
// cells outweigh many a tensor, through as many as keep what a launch borrows within bounds.
#include <algorithm>
#include <limits>
#include <map>

#include "base/thread_pool.hpp"
#include "executor/device_statistics.hpp"
#include "executor/staging.hpp"

namespace gradkern::executor {
namespace {

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

std::int64_t container_bytes(FormatId format) {
  return formats::visit(format,
                        [](auto f) { return static_cast<std::int64_t>(sizeof(typename decltype(f)::container)); });
}

using Group = std::vector<std::int64_t>;  // indices of tensors

template <class Tensor, class Wanted>
std::map<FormatId, Group> by_format(const Tensor* tensors, std::int64_t count, Wanted wanted) {
  std::map<FormatId, Group> groups;
  for (std::int64_t i = 0; i < count; ++i)
    if (wanted(i)) groups[tensors[i].format].push_back(i);
  return groups;
}

struct Chunks {
  std::vector<std::int64_t> first{0};
  std::int64_t all() const { return first.back(); }
  std::int64_t begin(std::size_t nth) const { return first[nth]; }
  std::int64_t end(std::size_t nth) const { return first[nth + 1]; }
};

template <class Tensor>
Chunks chunks_of(const Tensor* tensors, const Group& group, std::int64_t chunk) {
  Chunks chunks;
  for (const std::int64_t i : group) chunks.first.push_back(chunks.all() + base::chunk_count(tensors[i].size, chunk));
  return chunks;
}

TensorChunks uploaded(Staging& staging, const Chunks& chunks) {
  return {staging.upload(chunks.first), static_cast<std::int64_t>(chunks.first.size()) - 1, chunks.all()};
}

// What the statistics of several tensors may borrow at once of a device's memory; one tensor takes what it needs.
constexpr std::int64_t most_borrowed = 32 << 20;

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

template <class F>
std::int64_t borrowed_bytes(const Staging& staging, const StatisticsArgs& tensor) {
  constexpr auto chunk_bytes = static_cast<std::int64_t>(sizeof(StatisticsChunk));
  const bool copied = tensor.size > 0 && !staging.on_device(tensor.data);
  return BinadeRange<F>::cells * 8 + base::chunk_count(tensor.size, ops::statistics_chunk) * chunk_bytes +
         (copied ? tensor.size * container_bytes(F::id) : 0);
}

template <class F>
void measure_group(const DeviceTable& table, const StatisticsArgs* tensors, const Group& group, ops::Statistics& s,
                   const StatisticsDone& done) {
  Staging staging(table);
  constexpr std::int64_t cells = BinadeRange<F>::cells;
  const auto count = static_cast<std::int64_t>(group.size());
  const Chunks chunks = chunks_of(tensors, group, ops::statistics_chunk);
  std::vector<StatisticsArgs> descriptors;
  for (const std::int64_t i : group) {
    StatisticsArgs t = tensors[i];
    t.data = staging.in(t.data, t.size * container_bytes(t.format));
    descriptors.push_back(t);
  }
  StatisticsList list{uploaded(staging, chunks), F::id, staging.upload(descriptors),
                      staging.scratch<StatisticsChunk>(chunks.all()),
                      staging.scratch<std::int64_t>(count * cells, true)};
  if (chunks.all()) staging.check(table.statistics(&list, staging.stream()), "statistics");
  const auto parts = staging.fetch(list.partials, chunks.all());
  const auto rows = staging.fetch(list.cells, count * cells);
  for (std::size_t nth = 0; nth < group.size(); ++nth) {
    const std::int64_t i = group[nth], begin = chunks.begin(nth);
    gather_chunks<F>(parts.data() + begin, chunks.end(nth) - begin,
                     rows.data() + static_cast<std::int64_t>(nth) * cells, tensors[i].size, s);
    done(i, s);
  }
}

template <class F>
void measure_pattern(const DeviceTable& table, const StatisticsArgs& tensor, ops::Statistics& s) {
  Staging staging(table);
  constexpr std::int64_t patterns = std::int64_t(1) << (8 * sizeof(typename F::container));
  StatisticsArgs t = tensor;
  t.data = staging.in(t.data, t.size * container_bytes(t.format));
  auto* counts = staging.scratch<std::int64_t>(patterns, true);
  const std::vector<std::int64_t> nowhere{std::numeric_limits<std::int64_t>::max()};
  auto* first = const_cast<std::int64_t*>(staging.upload(nowhere));
  staging.check(table.count_patterns(&t, counts, first, staging.stream()), "statistics");
  const auto found = staging.fetch(counts, patterns);
  gather_patterns<F>(found.data(), staging.fetch(first, 1)[0], s);
}

// Calls body(indices, list, staging, parts' chunks) with the tensors of each format that are wanted, in device memory.
template <class Partial, class Wanted, class Launch>
void clip_lists(const Executor& e, const ClipTensor* tensors, std::int64_t count, Partial* results, bool writes,
                Wanted wanted, Launch launch) {
  for (const auto& [format, group] : by_format(tensors, count, wanted)) {
    Staging staging(*e.device);
    const Chunks chunks = chunks_of(tensors, group, ops::clip_chunk);
    if (chunks.all() == 0) continue;
    std::vector<ClipTensor> descriptors;
    for (const std::int64_t i : group) {
      ClipTensor t = tensors[i];
      const std::int64_t bytes = t.size * container_bytes(format);
      if (!writes) {
        t.source = staging.in(t.source, bytes);
      } else if (t.source == t.target) {
        t.source = t.target = staging.out(t.target, bytes, true);
      } else {
        t.source = staging.in(t.source, bytes);
        t.target = staging.out(t.target, bytes);
      }
      descriptors.push_back(t);
    }
    const ClipList list{uploaded(staging, chunks), format, staging.upload(descriptors)};
    auto* partials = staging.scratch<Partial>(chunks.all());
    staging.check(launch(list, group, partials, staging), "clip");
    const auto parts = staging.fetch(partials, chunks.all());
    staging.finish();
    for (std::size_t nth = 0; nth < group.size(); ++nth)
      for (std::int64_t c = chunks.begin(nth); c < chunks.end(nth); ++c) results[group[nth]].merge(parts[at(c)]);
  }
}

template <class T>
const T* uploaded_of(Staging& staging, const T* all, const Group& group) {
  std::vector<T> own;
  for (const std::int64_t i : group) own.push_back(all[i]);
  return staging.upload(own);
}

}  // namespace

void device_statistics(const Executor& e, const StatisticsArgs* tensors, std::int64_t count,
                       const StatisticsDone& done) {
  const auto s = ops::make_statistics();
  const auto pattern = [&](std::int64_t i) {
    return formats::visit(tensors[i].format,
                          [&](auto f) { return ops::measured_by_pattern<decltype(f)>(tensors[i].size); });
  };
  for (const auto& [format, group] : by_format(tensors, count, [&](std::int64_t i) { return !pattern(i); })) {
    formats::visit(format, [&, &members = group](auto f) {  // clang 14 captures no structured binding
      using F = decltype(f);
      const Staging staging(*e.device);
      const auto cost = [&](std::int64_t i) { return borrowed_bytes<F>(staging, tensors[i]); };
      for (const Group& part : parts_of(members, cost)) measure_group<F>(*e.device, tensors, part, *s, done);
    });
  }
  for (std::int64_t i = 0; i < count; ++i) {
    if (!pattern(i)) continue;
    formats::visit(tensors[i].format, [&](auto f) {
      using F = decltype(f);
      if constexpr (ops::counts_patterns<F>) measure_pattern<F>(*e.device, tensors[i], *s);
    });
    done(i, *s);
  }
}

void device_clip_survey(const Executor& e, const ClipTensor* tensors, std::int64_t count, ops::Norm p,
                        ops::Survey* surveys) {
  std::fill_n(surveys, count, ops::Survey{});
  clip_lists(
      e, tensors, count, surveys, false, [](std::int64_t) { return true; },
      [&](const ClipList& list, const Group&, ops::Survey* partials, Staging& staging) {
        return e.device->clip_survey(&list, p, partials, staging.stream());
      });
}

void device_clip_scale(const Executor& e, const ClipTensor* tensors, std::int64_t count, const ops::Survey*,
                       const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts) {
  clip_lists(
      e, tensors, count, counts, true, [&](std::int64_t i) { return factors[i].write; },
      [&](const ClipList& list, const Group& group, ops::ClipCounts* partials, Staging& staging) {
        const auto* own = uploaded_of(staging, factors, group);
        return e.device->clip_scale(&list, own, zero, partials, staging.stream());
      });
}

void device_clip_clamp(const Executor& e, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds* bounds,
                       bool zero, ops::ClipCounts* counts) {
  clip_lists(
      e, tensors, count, counts, true, [&](std::int64_t i) { return bounds[i].write; },
      [&](const ClipList& list, const Group& group, ops::ClipCounts* partials, Staging& staging) {
        const auto* own = uploaded_of(staging, bounds, group);
        return e.device->clip_clamp(&list, own, zero, partials, staging.stream());
      });
}

}  // namespace gradkern::executor
