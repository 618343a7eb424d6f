// The one way C++ refuses an argument: Python has checked already, this guards memory.
#pragma once

#include <stdexcept>
#include <string>

namespace gradkern::base {

class UnsupportedIsa : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A device that cannot be used, or that failed.
class DeviceError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void expects(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace gradkern::base
