package policy

import "sync/atomic"

// ShrinkCache makes room for n chains of inbound policies only.
func (s *Snapshot) ShrinkCache(n int) { s.in.cache = make([]atomic.Pointer[cached], n) }
