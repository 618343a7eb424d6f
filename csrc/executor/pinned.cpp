#include "executor/pinned.hpp"

#include <algorithm>
#include <deque>
#include <mutex>
#include <vector>

namespace gradkern::executor {
namespace {

struct Block {
  const DeviceTable* table;
  void* data;
  std::int64_t bytes;
};

constexpr std::int64_t least_bytes = 1 << 16;

// What was given back, the oldest first. Never destroyed: the driver may be gone when the process ends.
struct Kept {
  std::mutex mutex;
  std::deque<Block> blocks;
  std::int64_t bytes = 0;
};
Kept& kept() {
  static auto* all = new Kept;
  return *all;
}

void release(const std::vector<Block>& blocks) {
  for (const Block& b : blocks) b.table->release_host(b.data);
}

void* taken(const DeviceTable& table, std::int64_t bytes) {
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  const auto found = std::find_if(all.blocks.begin(), all.blocks.end(),
                                  [&](const Block& b) { return b.table == &table && b.bytes == bytes; });
  if (found == all.blocks.end()) return nullptr;
  void* data = found->data;
  all.bytes -= bytes;
  all.blocks.erase(found);
  return data;
}

// The oldest blocks, taken out until no more than so many bytes are kept.
std::vector<Block> oldest_beyond(std::int64_t bytes) {
  Kept& all = kept();
  std::vector<Block> old;
  const std::lock_guard lock(all.mutex);
  while (!all.blocks.empty() && all.bytes > bytes) {
    old.push_back(all.blocks.front());
    all.bytes -= all.blocks.front().bytes;
    all.blocks.pop_front();
  }
  return old;
}

void keep(const Block& block) {
  release(oldest_beyond(Pinned::most_kept_bytes - block.bytes));
  Kept& all = kept();
  const std::lock_guard lock(all.mutex);
  all.blocks.push_back(block);
  all.bytes += block.bytes;
}

}  // namespace

std::int64_t Pinned::size_of(std::int64_t bytes) {
  std::int64_t size = least_bytes;
  while (size < bytes) size *= 2;
  return size;
}

Pinned::Pinned(const DeviceTable& table, std::int64_t bytes) : table_(&table), data_(nullptr), bytes_(size_of(bytes)) {
  data_ = taken(table, bytes_);
  if (data_ || table.allocate_host(&data_, bytes_) == 0) return;
  release(oldest_beyond(0));
  check(table, table.allocate_host(&data_, bytes_), "allocate page-locked memory");
}

Pinned::~Pinned() {
  if (!data_) return;
  bool is_kept = bytes_ <= most_kept_bytes / 4;
  try {
    if (is_kept) keep({table_, data_, bytes_});
  } catch (const std::bad_alloc&) {
    is_kept = false;
  }
  if (!is_kept) table_->release_host(data_);
}

}  // namespace gradkern::executor
