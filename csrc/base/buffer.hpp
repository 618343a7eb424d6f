// Bytes that are not cleared when they are made, nor kept when they grow: for results about to be written.
//
// They begin with a cache line, so that no vector of a kernel lies in two. Freed buffers wait for the next, up to a 64th
// of the machine's or the container's memory (64 MiB to 1 GiB): the system clears each page that it hands out, which
// takes longer than many a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace gradkern::base {

// Bytes of a buffer, and bytes that are given back to wait for the next.
std::uint8_t* take_bytes(std::size_t size);
void give_back_bytes(std::uint8_t* bytes, std::size_t size) noexcept;

class Buffer {
 public:
  static constexpr std::align_val_t alignment{64};

  Buffer() = default;
  explicit Buffer(std::size_t size) { resize(size); }
  Buffer(const Buffer& other) { *this = other; }
  Buffer(Buffer&& other) noexcept { swap(other); }
  ~Buffer() { release(); }
  Buffer& operator=(const Buffer& other) {
    resize(other.size_);
    if (size_) std::memcpy(bytes_.get(), other.bytes_.get(), size_);
    return *this;
  }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  void resize(std::size_t size) {
    if (size > capacity_) {
      release();
      std::size_t capacity = size;
      bytes_ = take(capacity);
      capacity_ = capacity;
    }
    size_ = size;
  }
  void clear() { size_ = 0; }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::uint8_t* data() { return bytes_.get(); }
  const std::uint8_t* data() const { return bytes_.get(); }

 private:
  struct Free {
    void operator()(std::uint8_t* bytes) const { ::operator delete[](bytes, alignment); }
  };
  using Bytes = std::unique_ptr<std::uint8_t[], Free>;

  static Bytes take(std::size_t& size, bool exactly = false);  // or more, which it says
  static void give_back(Bytes bytes, std::size_t size) noexcept;
  friend std::uint8_t* take_bytes(std::size_t size);
  friend void give_back_bytes(std::uint8_t* bytes, std::size_t size) noexcept;

  void release() {
    if (capacity_) give_back(std::move(bytes_), capacity_);
    capacity_ = 0;
  }
  void swap(Buffer& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  Bytes bytes_;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace gradkern::base
