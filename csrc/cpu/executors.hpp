// Hands the executors of every built-in instruction set to the registry.
#pragma once

namespace gradkern::cpu {

void register_executors();

}  // namespace gradkern::cpu
