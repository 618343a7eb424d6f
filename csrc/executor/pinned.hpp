// Page-locked memory of the host, which a device copies from and to by itself. It is dear to make, so what is given back
// is kept for the next who asks. Whoever gives it back has waited for the copies.
#pragma once

#include <cstdint>

#include "executor/device.hpp"

namespace gradkern::executor {

class Pinned {
 public:
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
  std::int64_t bytes_;  // a power of two
};

}  // namespace gradkern::executor
