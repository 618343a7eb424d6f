// A vector's memory from the buffers of base/buffer.hpp: not cleared when it is made.
#pragma once

#include <cstddef>
#include <new>
#include <utility>
#include <vector>

#include "base/buffer.hpp"

namespace gradkern::base {

template <class T>
struct Uncleared {
  using value_type = T;
  Uncleared() = default;
  template <class U>
  Uncleared(const Uncleared<U>&) {}

  T* allocate(std::size_t count) { return reinterpret_cast<T*>(take_bytes(count * sizeof(T))); }
  void deallocate(T* p, std::size_t count) { give_back_bytes(reinterpret_cast<std::uint8_t*>(p), count * sizeof(T)); }

  template <class U>
  void construct(U* p) {
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }

  friend bool operator==(const Uncleared&, const Uncleared&) { return true; }
};

// vector(n) and resize(n) leave new entries as they are: for results about to be written.
template <class T>
using UnclearedVector = std::vector<T, Uncleared<T>>;

}  // namespace gradkern::base
