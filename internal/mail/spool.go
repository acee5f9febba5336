package mail

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// SpoolOptions bound what all messages in flight may take.
type SpoolOptions struct {
	// Dir is the directory for what doesn't fit into memory: made with mode
	// 0700 if absent; files in it are unlinked as soon as they are open. It must
	// belong to the user that runs the process and be closed to all others. It
	// may be empty if MaxBytes is 0.
	Dir string
	// MemoryLimit and MaxBytes are the bytes that messages may take in memory
	// and on disk; 0 means that nothing is kept there.
	MemoryLimit, MaxBytes int64
	// MaxMessage is the greatest size of one message in bytes; 0 means no limit
	// but the room there is.
	MaxMessage int64
}

// Spool makes messages and accounts for the room they take. Safe for concurrent
// use.
type Spool struct {
	path       string // of the directory
	memory     room
	disk       room
	maxMessage atomic.Int64
	// dir is the open directory, nil as long as nothing was to be kept on disk.
	dir     atomic.Pointer[os.File]
	setting sync.Mutex // held by SetLimits
	buffers [bufferClasses]sync.Pool
	lines   sync.Pool // of *bufio.Reader, for the parser
}

// Errors of the spool that callers branch on.
var (
	// ErrSpoolFull: neither memory nor disk has room. The MTA is told 451.
	ErrSpoolFull = errors.New("spool is full")
	// ErrTooLarge: the message is larger than MaxMessage. The MTA is told 552.
	ErrTooLarge = errors.New("message is larger than max_message_size")
	// ErrAborted: the message will never be complete.
	ErrAborted = errors.New("message was aborted")
)

const (
	// smallMessage is the most that one message keeps in a buffer.
	smallMessage = 64 << 10
	// leastBuffer is the size of the first buffer; each class doubles it.
	leastBuffer   = 8 << 10
	bufferClasses = 4
	// fileStep is the unit in which room for files is reserved.
	fileStep = 64 << 10
	// namePrefix begins the names that files have before they are unlinked.
	namePrefix = "sluice-"
)

// room counts reserved bytes against a limit. A limit that was lowered below what
// is used leaves no room until enough is released.
type room struct {
	limit, used atomic.Int64
}

// reserve takes n bytes and reports whether there was room.
func (r *room) reserve(n int64) bool {
	for {
		used := r.used.Load()
		if n > r.limit.Load()-used {
			return false
		}
		if r.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (r *room) release(n int64) { r.used.Add(-n) }

func (r *room) free() int64 { return r.limit.Load() - r.used.Load() }

// NewSpool makes the directory and checks that it is ours alone and that it can
// be written to. Files that a killed process left there are removed.
func NewSpool(o SpoolOptions) (*Spool, error) {
	s := &Spool{path: o.Dir}
	if err := s.SetLimits(SpoolLimits{MemoryLimit: o.MemoryLimit, MaxBytes: o.MaxBytes, MaxMessage: o.MaxMessage}); err != nil {
		return nil, err
	}
	return s, nil
}

// SpoolLimits are the limits of SpoolOptions.
type SpoolLimits struct {
	MemoryLimit, MaxBytes, MaxMessage int64
}

// SetLimits puts other limits in force while messages are in flight. None of those
// loses what has arrived: a limit below what is used only refuses new bytes, in memory (the
// message then goes to disk) or on disk (ErrSpoolFull), until enough has been given
// back. MaxMessage holds for messages that begin from now on.
//
// It fails, and changes nothing, if bytes are to be kept on disk for the first time
// and the directory is of no use.
func (s *Spool) SetLimits(l SpoolLimits) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	if l.MaxBytes > 0 && s.dir.Load() == nil {
		dir, err := openDirectory(s.path)
		if err != nil {
			return err
		}
		s.dir.Store(dir)
	}
	s.memory.limit.Store(l.MemoryLimit)
	s.disk.limit.Store(max(0, l.MaxBytes))
	s.maxMessage.Store(l.MaxMessage)
	return nil
}

// Limits returns the limits that are in force.
func (s *Spool) Limits() SpoolLimits {
	s.setting.Lock()
	defer s.setting.Unlock()
	return SpoolLimits{MemoryLimit: s.memory.limit.Load(), MaxBytes: s.disk.limit.Load(), MaxMessage: s.maxMessage.Load()}
}

// openDirectory makes and opens the directory for files.
func openDirectory(path string) (*os.File, error) {
	if path == "" {
		return nil, errors.New("spool: no directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("spool: make directory: %w", err)
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("spool: open directory %s (it may not be a symbolic link): %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := checkDirectory(dir); err != nil {
		_ = dir.Close() // the first error is the one to tell
		return nil, err
	}
	return dir, nil
}

// checkDirectory checks that a directory is ours alone, clears it and writes to it.
func checkDirectory(dir *os.File) error {
	st, err := dir.Stat()
	if err != nil {
		return fmt.Errorf("spool: look at directory: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("spool: directory %s belongs to another user: chown it", dir.Name())
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("spool: directory %s is open to others (mode %04o): chmod 0700 it", dir.Name(), st.Mode().Perm())
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("spool: list directory: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, namePrefix) {
			// A living process has its name here for microseconds only, and does
			// not mind when it is gone.
			_ = unix.Unlinkat(int(dir.Fd()), name, 0)
		}
	}
	f, err := createOnDisk(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

// Close gives back the directory. No message may be in use any more.
func (s *Spool) Close() error {
	dir := s.dir.Load()
	if dir == nil {
		return nil
	}
	return dir.Close()
}

// Full reports whether no further message should be begun: both memory and
// disk are used up.
func (s *Spool) Full() bool {
	if s.memory.free() >= smallMessage {
		return false
	}
	dir := s.dir.Load()
	if dir == nil || s.disk.free() < fileStep {
		return true
	}
	// The counter has room, the file system may have none: others write there too.
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return false // Write will say what is wrong
	}
	return int64(st.Bavail)*st.Bsize < fileStep
}

// Used returns the bytes that messages in flight take in memory and on disk.
func (s *Spool) Used() (memory, disk int64) { return s.memory.used.Load(), s.disk.used.Load() }

// New begins a message. The caller must Close it.
func (s *Spool) New() *Message {
	return &Message{spool: s, maxBytes: s.maxMessage.Load(), done: make(chan struct{}), sum: sha256.New()}
}

// createOnDisk makes a file in the directory that has no name any more.
func createOnDisk(in *os.File) (*os.File, error) {
	dir := int(in.Fd())
	for {
		name := fmt.Sprintf("%s%016x", namePrefix, rand.Uint64())
		fd, err := ignoringEINTR(func() (int, error) {
			return unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("spool: create file in %s: %w", in.Name(), err)
		}
		f := os.NewFile(uintptr(fd), name)
		if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			_ = f.Close() // the first error is the one to tell
			return nil, fmt.Errorf("spool: unlink file in %s: %w", in.Name(), err)
		}
		return f, nil
	}
}

// createInMemory makes a file that lies in memory.
func createInMemory(flags int) (*os.File, error) {
	fd, err := unix.MemfdCreate("sluice-message", unix.MFD_CLOEXEC|flags)
	if err != nil {
		return nil, fmt.Errorf("spool: make memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "sluice-message"), nil
}

// buffer returns an empty buffer with room for n ≤ smallMessage bytes whose
// capacity is reserved as memory, or nil if there is no room.
func (s *Spool) buffer(n int) []byte {
	class, size := 0, leastBuffer
	for size < n {
		class, size = class+1, size*2
	}
	if !s.memory.reserve(int64(size)) {
		return nil
	}
	if b, ok := s.buffers[class].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

// giveBack returns a buffer that nobody reads any more.
func (s *Spool) giveBack(b []byte) {
	if b == nil {
		return
	}
	s.memory.release(int64(cap(b)))
	class := 0
	for size := leastBuffer; size < cap(b); size *= 2 {
		class++
	}
	s.buffers[class].Put(&b)
}

// storageError turns what the system says about a lack of room into
// ErrSpoolFull; the message must be refused for now either way.
func storageError(err error) error {
	for _, lack := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, lack) {
			return fmt.Errorf("%w: %w", ErrSpoolFull, err)
		}
	}
	return err
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
