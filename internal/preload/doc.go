// Package preload is what an application loads once for all its workers:
// Puma's preload_app for a language that cannot fork.
//
// A [Builder] writes named sections, one after the other, into memory without a
// name (a memfd): streamed bytes, slices of types without pointers, tables from
// string to bytes, whole directories. Seal ends that with a manifest, and seals
// the memory: from then on nobody can write to it or change its size. A worker
// opens the same memory as [Data] and reads it where it lies. All workers share
// the physical pages, and the garbage collector knows nothing of them.
//
// The callers: the root package, in the process that runs App.Preload (Builder),
// in each worker (Data), and in single mode for both ([Local]). The descriptor
// belongs to who made it, the mapping to Data; the memory goes when the last
// process that has either is gone.
//
// The invariant: Data exists only over memory that is sealed against every
// change and whose manifest is whole, so what was once checked stays true.
package preload
