// Several pieces of work in one launch, for a launch costs the host more than small tensors take a device: kernels find
// theirs by blockIdx.y, and blocks for which that has no entries return.
#pragma once

#include "cuda/platform.hpp"

namespace gradkern::cuda {

inline constexpr int most_together = 4;

// start(first, count) for stretches of the list, of which may_join(first, next) says who goes along with the first.
template <class Args, class Join, class Start>
int each_together(const Args* list, int count, Join may_join, Start start) {
  for (int first = 0, end = 0; first < count; first = end) {
    for (end = first + 1; end < count && end - first < most_together && may_join(list[first], list[end]);) ++end;
    if (const int error = start(list + first, end - first)) return error;
  }
  return 0;
}

}  // namespace gradkern::cuda
