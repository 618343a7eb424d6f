#include "base/buffer.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace gradkern::base {
namespace {

constexpr std::size_t worth_keeping = std::size_t(1) << 14;

// The machine's memory, or what a container may have of it.
std::size_t memory_of_machine() {
  std::size_t memory = 0;
#if defined(__linux__)
  memory = std::size_t(std::max(0L, sysconf(_SC_PHYS_PAGES))) * std::size_t(std::max(0L, sysconf(_SC_PAGESIZE)));
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::size_t limit = 0;
    if (std::ifstream(file) >> limit) memory = std::min(memory, limit);  // "max" is no number
  }
#endif
  return memory;
}

// A 64th of it, within limits.
std::size_t kept_at_most() {
  static const std::size_t limit = std::clamp(memory_of_machine() / 64, std::size_t(1) << 26, std::size_t(1) << 30);
  return limit;
}

struct Kept {
  std::mutex mutex;
  std::multimap<std::size_t, std::uint8_t*> free;
  std::size_t bytes = 0;
};

// Leaked on purpose: buffers may outlive it. Only ever tried to lock, for a forked child may find it locked for ever.
Kept& kept() {
  static Kept* const instance = new Kept;
  return *instance;
}

// Large buffers lie in large pages, of which fewer have to be cleared, noted and looked up.
void ask_for_large_pages([[maybe_unused]] std::uint8_t* bytes, [[maybe_unused]] std::size_t size) {
#if defined(__linux__)
  constexpr std::size_t page = 4096, worth_it = std::size_t(1) << 22;
  if (size < worth_it) return;
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(bytes) % page) % page;
  madvise(bytes + skipped, (size - skipped) / page * page, MADV_HUGEPAGE);  // a wish: it may fail
#endif
}

}  // namespace

Buffer::Bytes Buffer::take(std::size_t& size, bool exactly) {
  Kept& k = kept();
  const std::unique_lock lock(k.mutex, std::try_to_lock);
  if (size >= worth_keeping && lock.owns_lock()) {
    const auto found = k.free.lower_bound(size);
    if (found != k.free.end() && found->first <= (exactly ? size : size + size / 4)) {
      size = found->first;
      std::uint8_t* bytes = found->second;
      k.free.erase(found);
      k.bytes -= size;
      return Bytes(bytes);
    }
  }
  Bytes bytes(static_cast<std::uint8_t*>(::operator new[](size, alignment)));
  ask_for_large_pages(bytes.get(), size);
  return bytes;
}

void Buffer::give_back(Bytes bytes, std::size_t size) noexcept try {
  Kept& k = kept();
  const std::unique_lock lock(k.mutex, std::try_to_lock);
  if (size < worth_keeping || !lock.owns_lock() || k.bytes + size > kept_at_most()) return;
  k.free.emplace(size, bytes.get());
  bytes.release();
  k.bytes += size;
} catch (...) {  // no room for a note: the bytes are freed
}

std::uint8_t* take_bytes(std::size_t size) { return Buffer::take(size, true).release(); }
void give_back_bytes(std::uint8_t* bytes, std::size_t size) noexcept { Buffer::give_back(Buffer::Bytes(bytes), size); }

}  // namespace gradkern::base
