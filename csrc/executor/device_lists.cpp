// Lists of tensors on a device: those of one format go through one launch, their chunks side by side; statistics, whose
// cells outweigh many a tensor, through as many as keep what a launch borrows within bounds.
#include <algorithm>
#include <limits>
#include <map>

#include "base/thread_pool.hpp"
#include "executor/block.hpp"
#include "executor/device_statistics.hpp"

namespace gradkern::executor {
namespace {

std::int64_t container_bytes(FormatId format) {
  return formats::visit(format,
                        [](auto f) { return static_cast<std::int64_t>(sizeof(typename decltype(f)::container)); });
}

using Group = std::vector<std::int64_t>;  // indices of tensors

std::int64_t count_of(const Group& group) { return static_cast<std::int64_t>(group.size()); }

template <class Tensor, class Wanted>
std::map<FormatId, Group> by_format(const Tensor* tensors, std::int64_t count, Wanted wanted) {
  std::map<FormatId, Group> groups;
  for (std::int64_t i = 0; i < count; ++i)
    if (wanted(i)) groups[tensors[i].format].push_back(i);
  return groups;
}

// body(nth) for the nth of so many tensors: threads share them out by so many at once.
template <class Body>
void share_out(std::int64_t count, std::int64_t at_once, Body body) {
  base::parallel_for(base::chunk_count(count, at_once),
                     [&](std::int64_t share) { body(share * at_once, std::min(count, (share + 1) * at_once)); });
}

template <class Tensor>
std::int64_t chunks_of(const Tensor* tensors, const Group& group, std::int64_t chunk) {
  std::int64_t chunks = 0;
  for (const std::int64_t i : group) chunks += base::chunk_count(tensors[i].size, chunk);
  return chunks;
}

// A group's tensors as kernels see them, and the first chunk of each: what is sent before a launch.
template <class Tensor>
class Sent {
 public:
  Sent(Block& block, const Group& group)
      : block_(block),
        first_(block.add<std::int64_t>(count_of(group) + 1)),
        tensors_(block.add<Tensor>(count_of(group))) {}

  // staged(tensor): the tensor with its data in device memory.
  template <class Staged>
  void put(const Tensor* tensors, const Group& group, std::int64_t chunk, Staged staged) {
    std::int64_t* first = block_.host(first_);
    Tensor* put = block_.host(tensors_);
    *first = 0;
    for (const std::int64_t i : group) {
      first[1] = first[0] + base::chunk_count(tensors[i].size, chunk);
      ++first;
      *put++ = staged(tensors[i]);
    }
    where_ = {block_.device(first_), count_of(group), *first};
  }

  const Block::Part<Tensor>& last() const { return tensors_; }
  const TensorChunks& where() const { return where_; }
  const Tensor* tensors() const { return block_.device(tensors_); }
  // Of the nth tensor.
  std::int64_t begin(std::int64_t nth) const { return block_.host(first_)[nth]; }
  std::int64_t end(std::int64_t nth) const { return begin(nth + 1); }

 private:
  Block& block_;
  Block::Part<std::int64_t> first_;
  Block::Part<Tensor> tensors_;
  TensorChunks where_{};
};

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

std::int64_t copied_bytes(const Staging& staging, const StatisticsArgs& t) {
  return t.size == 0 || staging.on_device(t.data) ? 0 : t.size * container_bytes(t.format);
}

StatisticsArgs staged(Staging& staging, const StatisticsArgs& tensor) {
  StatisticsArgs t = tensor;
  t.data = staging.in(t.data, t.size * container_bytes(t.format));
  return t;
}

// gather(nth, statistics) for each of a group, then done.
template <class Gather>
void gather_group(const Group& group, const StatisticsDone& done, Gather gather) {
  share_out(count_of(group), 16, [&](std::int64_t begin, std::int64_t end) {
    const auto s = ops::make_statistics();
    for (std::int64_t nth = begin; nth < end; ++nth) {
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
    return cells * 8 + base::chunk_count(size, ops::statistics_chunk) * chunk_bytes;
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
    gather_group(group, done, [&](std::int64_t nth, ops::Statistics& s) {
      const std::int64_t begin = sent.begin(nth), size = tensors[group[static_cast<std::size_t>(nth)]].size;
      gather_chunks<F>(block.host(partials) + begin, sent.end(nth) - begin, block.host(rows) + nth * cells, size, s);
    });
  }
};

// By pattern, in a launch for each tensor.
template <class F>
struct ByPattern {
  static constexpr std::int64_t patterns = std::int64_t(1) << (8 * sizeof(typename F::container));

  static std::int64_t borrowed(std::int64_t) { return patterns * 8; }

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
    gather_group(group, done, [&](std::int64_t nth, ops::Statistics& s) {
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

ClipTensor staged(Staging& staging, const ClipTensor& tensor, std::int64_t bytes, bool writes) {
  ClipTensor t = tensor;
  if (!writes) {
    t.source = staging.in(t.source, bytes);
  } else if (t.source == t.target) {
    t.source = t.target = staging.out(t.target, bytes, true);
  } else {
    t.source = staging.in(t.source, bytes);
    t.target = staging.out(t.target, bytes);
  }
  return t;
}

// launch(list, parameters, partials, staging) with the tensors of each format that are wanted, in device memory.
// parameters: one per tensor, or none.
template <class Partial, class Parameter, class Wanted, class Launch>
void clip_lists(const Executor& e, const ClipTensor* tensors, std::int64_t count, const Parameter* parameters,
                Partial* results, bool writes, Wanted wanted, Launch launch) {
  for (const auto& [format, members] : by_format(tensors, count, wanted)) {
    const Group& group = members;  // clang 14 captures no structured binding
    const std::int64_t chunks = chunks_of(tensors, group, ops::clip_chunk), width = container_bytes(format);
    if (chunks == 0) continue;
    Staging staging(e);
    Block block(staging);
    const auto own = block.add<Parameter>(parameters ? count_of(group) : 0);
    Sent<ClipTensor> sent(block, group);
    const auto partials = block.add<Partial>(chunks);
    block.make();
    for (std::size_t nth = 0; parameters && nth < group.size(); ++nth) block.host(own)[nth] = parameters[group[nth]];
    sent.put(tensors, group, ops::clip_chunk,
             [&](const ClipTensor& t) { return staged(staging, t, t.size * width, writes); });
    block.send(sent.last());
    const ClipList list{sent.where(), format, sent.tensors()};
    staging.check(launch(&list, block.device(own), block.device(partials), staging.stream()), "clip");
    block.fetch(partials);
    share_out(count_of(group), 2048, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t nth = begin; nth < end; ++nth)
        for (std::int64_t c = sent.begin(nth); c < sent.end(nth); ++c)
          results[group[static_cast<std::size_t>(nth)]].merge(block.host(partials)[c]);
    });
  }
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

void device_clip_survey(const Executor& e, const ClipTensor* tensors, std::int64_t count, ops::Norm p,
                        ops::Survey* surveys) {
  std::fill_n(surveys, count, ops::Survey{});
  const ops::ClipFactor* none = nullptr;
  clip_lists(
      e, tensors, count, none, surveys, false, [](std::int64_t) { return true; },
      [&](const ClipList* list, const ops::ClipFactor*, ops::Survey* partials, Stream stream) {
        return e.device->clip_survey(list, p, partials, stream);
      });
}

void device_clip_scale(const Executor& e, const ClipTensor* tensors, std::int64_t count, const ops::Survey*,
                       const ops::ClipFactor* factors, bool zero, ops::ClipCounts* counts) {
  clip_lists(
      e, tensors, count, factors, counts, true, [&](std::int64_t i) { return factors[i].write; },
      [&](const ClipList* list, const ops::ClipFactor* own, ops::ClipCounts* partials, Stream stream) {
        return e.device->clip_scale(list, own, zero, partials, stream);
      });
}

void device_clip_clamp(const Executor& e, const ClipTensor* tensors, std::int64_t count, const ops::ClipBounds* bounds,
                       bool zero, ops::ClipCounts* counts) {
  clip_lists(
      e, tensors, count, bounds, counts, true, [&](std::int64_t i) { return bounds[i].write; },
      [&](const ClipList* list, const ops::ClipBounds* own, ops::ClipCounts* partials, Stream stream) {
        return e.device->clip_clamp(list, own, zero, partials, stream);
      });
}

}  // namespace gradkern::executor
