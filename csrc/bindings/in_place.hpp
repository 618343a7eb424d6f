// Arrays that are written where they lie, looked up in one loop: thousands of them take longer to look up than to clip.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "bindings/module.hpp"

namespace gradkern::bindings {

// Each of the arrays, all of them plain: NumPy's own, of a type number in `formats`, native, contiguous, aligned and
// writable; or of exactly `tensor_type`, which offers DLPack's exchange table, on the CPU, contiguous and aligned.
// Nothing in any other case, nor where in doubt. The memory stays the arrays'.
std::optional<std::vector<executor::ClipTensor>> plain_arrays(const py::list& arrays, const std::map<int, int>& formats,
                                                              const py::object& tensor_type);

}  // namespace gradkern::bindings
