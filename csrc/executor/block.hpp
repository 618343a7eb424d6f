// Arrays side by side in one block of a device's memory, and likewise in page-locked memory of the host: one copy takes
// those at its beginning there, another brings those at its end back.
//
//   Block block(staging);
//   const auto sent = block.add<T>(n), found = block.add<U>(m);
//   block.make();
//   ... block.host(sent) ...; block.send(sent); ... block.device(found) ...; block.fetch(found); ... block.host(found) ...
#pragma once

#include <optional>

#include "base/thread_pool.hpp"
#include "executor/staging.hpp"

namespace gradkern::executor {

class Block {
 public:
  template <class T>
  struct Part {
    std::int64_t begin, end;  // bytes
  };

  explicit Block(Staging& staging) : staging_(staging) {}
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {  // page-locked memory is not given back before its copies are done
    if (in_flight_) staging_.table().synchronize(staging_.stream());
  }

  template <class T>
  Part<T> add(std::int64_t count) {
    const Part<T> part{bytes_, bytes_ + count * static_cast<std::int64_t>(sizeof(T))};
    bytes_ = base::chunk_count(part.end, alignment) * alignment;
    return part;
  }
  void make() {
    host_.emplace(staging_.table(), bytes_);
    device_ = staging_.scratch<char>(bytes_);
  }

  template <class T>
  T* host(const Part<T>& part) const {
    return reinterpret_cast<T*>(host_->as<char>() + part.begin);
  }
  template <class T>
  T* device(const Part<T>& part) const {
    return reinterpret_cast<T*>(device_ + part.begin);
  }

  template <class T>
  void clear(const Part<T>& part) {
    staging_.check(staging_.table().clear(device(part), part.end - part.begin, staging_.stream()), "clear");
  }
  // The arrays up to the last that is sent.
  template <class T>
  void send(const Part<T>& last) {
    in_flight_ = true;
    staging_.check(staging_.table().copy(device_, host_->data(), last.end, staging_.stream()), "copy to the device");
  }
  // Those from the first that is wanted; waits for all that was enqueued.
  template <class T>
  void fetch(const Part<T>& first) {
    staging_.fetch(host(first), device(first), bytes_ - first.begin);
    in_flight_ = false;
  }

 private:
  static constexpr std::int64_t alignment = 256;  // bytes

  Staging& staging_;
  std::optional<Pinned> host_;
  char* device_ = nullptr;
  std::int64_t bytes_ = 0;
  bool in_flight_ = false;
};

}  // namespace gradkern::executor
