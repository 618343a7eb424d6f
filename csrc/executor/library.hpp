// The libraries of device kernels, opened when they are first asked for. A missing or broken one is no error until used.
#pragma once

#include <string>

#include "executor/device.hpp"

namespace gradkern::executor {

// "cuda" or "simt": its executor. Throws base::DeviceError that says exactly why it cannot be used.
const Executor& device(const std::string& name);

// "" where it can be used, else why not.
std::string why_not(const std::string& name);

}  // namespace gradkern::executor
