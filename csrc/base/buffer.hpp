// Bytes that are not cleared when they are made: what is about to be written need not be zero first.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace gradkern::base {

template <class T>
struct Uncleared : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = Uncleared<U>;
  };
  template <class U>
  void construct(U* p) noexcept {
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Arguments>
  void construct(U* p, Arguments&&... arguments) {
    ::new (static_cast<void*>(p)) U(std::forward<Arguments>(arguments)...);
  }
};

using Bytes = std::vector<std::uint8_t, Uncleared<std::uint8_t>>;

}  // namespace gradkern::base
