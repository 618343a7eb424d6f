// Clipping of tensors on a device: surveyed, scaled or clamped in one launch for each format.
#include <algorithm>

#include "executor/device_list.hpp"

namespace gradkern::executor {
namespace {

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
    const Partial* part = block.host(partials);
    for (std::int64_t nth = 0; nth < count_of(group); ++nth)
      for (std::int64_t c = sent.begin(nth); c < sent.end(nth); ++c)
        results[group[static_cast<std::size_t>(nth)]].merge(*part++);
  }
}

}  // namespace

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
