package preload

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// seals is what makes memory safe to map: nobody can write to it, nobody can
// take a part of it away, and nobody can undo that.
const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL

// NewMemory returns the descriptor of new, empty memory that can be sealed, for
// NewBuilder. It is closed when a program is executed.
func NewMemory() (int, error) {
	fd, err := unix.MemfdCreate("catamount-preload", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("preload: memfd_create: %w", err)
	}
	return fd, nil
}

// checkEmpty reports why a descriptor is not what NewMemory returns.
func checkEmpty(fd int) error {
	found, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("preload: descriptor %d cannot be sealed: it is no memfd", fd)
	}
	if err != nil {
		return fmt.Errorf("preload: descriptor %d: %w", fd, err)
	}
	if found != 0 {
		return fmt.Errorf("preload: descriptor %d is sealed already (%#x), want a memfd without seals, made with MFD_ALLOW_SEALING", fd, found)
	}
	size, err := sizeOf(fd)
	if err != nil {
		return err
	}
	if size != 0 {
		return fmt.Errorf("preload: descriptor %d has %d bytes already, want an empty memfd", fd, size)
	}
	return nil
}

func checkSealed(fd int) error {
	found, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("preload: descriptor %d is no memfd", fd)
	}
	if err != nil {
		return fmt.Errorf("preload: descriptor %d: %w", fd, err)
	}
	if found&seals != seals {
		return fmt.Errorf("preload: descriptor %d has the seals %#x, want %#x: Seal has not been called on it", fd, found, seals)
	}
	return nil
}

func sizeOf(fd int) (int64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, fmt.Errorf("preload: descriptor %d: %w", fd, err)
	}
	return stat.Size, nil
}

func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("preload: seal: %w: something has mapped the memory for writing", err)
	}
	if err != nil {
		return fmt.Errorf("preload: seal: %w", err)
	}
	return nil
}

// writeAt writes all of p.
func writeAt(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("preload: write at %d: %w", at, err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// readAt fills p.
func readAt(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, at)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the memory ends here")
		}
		if err != nil {
			return fmt.Errorf("preload: read at %d: %w", at, err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}
