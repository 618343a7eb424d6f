// Page-locked memory of the host, which a device copies from and to by itself. It is dear to make, so what is given back
// is kept for the next who asks for as much, the oldest making room for the newest. Whoever gives it back has waited for
// the copies.
#pragma once

#include <cstdint>

#include "executor/device.hpp"

namespace gradkern::executor {

class Pinned {
 public:
  static constexpr std::int64_t most_kept_bytes = std::int64_t(256) << 20;
  // What is taken where so many bytes are asked for: a power of two.
  static std::int64_t size_of(std::int64_t bytes);

  Pinned(const DeviceTable& table, std::int64_t bytes);
  Pinned(Pinned&& other) noexcept : table_(other.table_), data_(other.data_), bytes_(other.bytes_) {
    other.data_ = nullptr;
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned();

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  const DeviceTable* table_;
  void* data_;
  std::int64_t bytes_;
};

}  // namespace gradkern::executor
