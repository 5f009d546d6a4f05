package logtail

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FileID names one life of one file: it changes when the file is truncated, or
// when its inode number goes to another file. Path is the name it had when its
// first line was read, with a mark behind it that a reader needs to know it
// again after a restart; keep it as it is, and show Name.
type FileID struct {
	Dev, Ino uint64
	Path     string
}

// Name is the path without the mark.
func (id FileID) Name() string {
	name, _, _ := splitMark(id.Path)
	return name
}

// headMax is how much of a file's first line tells it from others. Not more
// than the first line, since that much is there whenever it is read again.
const headMax = 1 << 10

// mark tells lives of an inode apart. The time of birth does when its number
// went to another file; the generation and the first bytes do when the same
// file began again. All of it is found again in the same way after a kill, so
// that lines read twice carry the same identity twice.
type mark struct {
	born int64  // ns, 0 where the file system does not know
	gen  int    // how often it was truncated, as far as was seen
	n    int    // bytes of the beginning that sum covers
	sum  uint64 // of these bytes
}

func (m mark) String() string {
	return fmt.Sprintf("#%s.%d.%d.%016x", strconv.FormatInt(m.born, 36), m.gen, m.n, m.sum)
}

func splitMark(path string) (name string, m mark, ok bool) {
	at := strings.LastIndexByte(path, '#')
	if at < 0 {
		return path, mark{}, false
	}
	part := strings.Split(path[at+1:], ".")
	if len(part) != 4 {
		return path, mark{}, false
	}
	var err [4]error
	m.born, err[0] = strconv.ParseInt(part[0], 36, 64)
	m.gen, err[1] = strconv.Atoi(part[1])
	m.n, err[2] = strconv.Atoi(part[2])
	m.sum, err[3] = strconv.ParseUint(part[3], 16, 64)
	for _, e := range err {
		if e != nil {
			return path, mark{}, false
		}
	}
	if m.gen < 0 || m.n < 0 || m.n > headMax || m.String() != path[at:] {
		return path, mark{}, false
	}
	return path[:at], m, true
}

func headSum(b []byte) uint64 {
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint64(h[:8])
}

// begins says whether the file begins as the mark says.
func (m mark) begins(fd io.ReaderAt) bool {
	if m.n == 0 {
		return true
	}
	var buf [headMax]byte
	n, _ := fd.ReadAt(buf[:m.n], 0)
	return n == m.n && headSum(buf[:n]) == m.sum
}

// birth is the time at which the inode came to be.
func birth(fd *os.File) int64 {
	var st unix.Statx_t
	if err := unix.Statx(int(fd.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}
