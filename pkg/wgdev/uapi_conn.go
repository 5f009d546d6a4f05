//go:build linux

package wgdev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// callTimeout bounds a call whose context has no deadline: a device that needs
// longer for one request is stuck.
const callTimeout = 30 * time.Second

// uapiConn is a driver for a userspace device behind a Unix socket. It keeps one
// connection open and sends one request at a time: the other side reads ahead, so
// a second request sent before the answer to the first would be lost.
type uapiConn struct {
	path string
	turn chan struct{} // holds one token; who has it may use what follows
	conn *net.UnixConn // nil when broken or closed
	rd   *bufio.Reader
	buf  []byte
	pid  int32 // process that the first connection met
	done bool
}

// dialUAPI connects to the device behind path. ErrGone when nobody is there.
func dialUAPI(ctx context.Context, path string) (*uapiConn, error) {
	c := &uapiConn{path: path, turn: make(chan struct{}, 1)}
	if err := c.dial(ctx); err != nil {
		return nil, err
	}
	c.turn <- struct{}{}
	return c, nil
}

func (c *uapiConn) dial(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", c.path)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		return fmt.Errorf("connect to the WireGuard process: %w", err)
	}
	uc := conn.(*net.UnixConn) // what "unix" always gives
	pid, err := peerPID(uc)
	if err != nil {
		_ = uc.Close()
		return err
	}
	if c.pid != 0 && pid != c.pid {
		_ = uc.Close()
		return fmt.Errorf("%w: process %d took the place of %d", ErrGone, pid, c.pid)
	}
	c.pid, c.conn = pid, uc
	c.rd = bufio.NewReaderSize(uc, 64<<10)
	return nil
}

// peerPID is the process that listens at the other end of a Unix socket.
func peerPID(c *net.UnixConn) (int32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if optErr != nil {
		return 0, fmt.Errorf("credentials of the WireGuard process: %w", optErr)
	}
	return cred.Pid, nil
}

func (c *uapiConn) program(ctx context.Context, ch change) error {
	_, err := c.call(ctx, func(b []byte) []byte {
		return append(ch.appendSet(append(b, "set=1\n"...)), '\n')
	})
	return err
}

func (c *uapiConn) read(ctx context.Context) (deviceState, error) {
	return c.call(ctx, func(b []byte) []byte { return append(b, "get=1\n\n"...) })
}

// call sends one request and reads its answer. Requests are idempotent, so one
// that met a broken connection is sent once more, to the same process.
func (c *uapiConn) call(ctx context.Context, request func([]byte) []byte) (deviceState, error) {
	select {
	case <-c.turn:
	case <-ctx.Done():
		return deviceState{}, ctx.Err()
	}
	defer func() { c.turn <- struct{}{} }()
	if c.done {
		return deviceState{}, net.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	c.buf = request(c.buf[:0])
	defer func() {
		clear(c.buf) // it may hold secret keys
		if cap(c.buf) > 1<<20 {
			c.buf = nil
		}
	}()
	fresh := c.conn == nil
	for {
		if c.conn == nil {
			if err := c.dial(ctx); err != nil {
				return deviceState{}, err
			}
		}
		state, err := c.exchange(ctx)
		if err == nil {
			return state, nil
		}
		// After an error the two sides may disagree on where a request begins.
		_ = c.conn.Close()
		c.conn = nil
		if ctx.Err() != nil {
			return deviceState{}, ctx.Err()
		}
		if !broken(err) {
			return deviceState{}, err
		}
		if fresh {
			return deviceState{}, fmt.Errorf("%w: %w", ErrGone, err)
		}
		fresh = true
	}
}

// broken tells a dead connection from an answer that says no.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

func (c *uapiConn) exchange(ctx context.Context) (deviceState, error) {
	conn := c.conn
	// Deadlines of ctx and of the connection are one and the same event this way, so
	// that an error here and ctx.Err there never disagree.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	state, err := c.ask()
	if !stop() && err == nil {
		// Too late for this call, but it must not hit the next one.
		_ = conn.Close()
		c.conn = nil
	}
	return state, err
}

// ask writes the request and reads lines up to the blank one.
func (c *uapiConn) ask() (deviceState, error) {
	if _, err := c.conn.Write(c.buf); err != nil {
		return deviceState{}, err
	}
	var g getParser
	for {
		line, err := c.rd.ReadSlice('\n')
		if err != nil {
			return deviceState{}, err
		}
		if len(line) == 1 {
			break
		}
		if err := g.line(line[:len(line)-1]); err != nil {
			return deviceState{}, err
		}
	}
	if g.errno != 0 {
		return deviceState{}, uapiError(g.errno)
	}
	return g.state, nil
}

func (c *uapiConn) close() error {
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	c.done = true
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}
