// A list of tensors on a device: those of one format go through one launch, their chunks side by side.
#pragma once

#include <map>

#include "executor/block.hpp"

namespace gradkern::executor {

using Group = std::vector<std::int64_t>;  // indices of tensors

inline std::int64_t count_of(const Group& group) { return static_cast<std::int64_t>(group.size()); }

template <class Tensor, class Wanted>
std::map<FormatId, Group> by_format(const Tensor* tensors, std::int64_t count, Wanted wanted) {
  std::map<FormatId, Group> groups;
  for (std::int64_t i = 0; i < count; ++i)
    if (wanted(i)) groups[tensors[i].format].push_back(i);
  return groups;
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

}  // namespace gradkern::executor
