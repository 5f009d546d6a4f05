//go:build linux

package demo

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// talk is one connection to an echo server that is used all the time.
type talk struct {
	net.Conn
	turns atomic.Int64 // answers so far
	ended chan error   // why it ended, once
}

func (s *story) talk(machine string, to netip.AddrPort) (*talk, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 15*time.Second)
	defer cancel()
	c, err := s.Machine(machine).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	t := &talk{Conn: c, ended: make(chan error, 1)}
	go func() { t.ended <- t.speak() }()
	return t, nil
}

// speak goes on until the connection ends.
func (t *talk) speak() error {
	r := bufio.NewReader(t)
	for {
		if err := t.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			return err
		}
		said := fmt.Sprintf("turn %d\n", t.turns.Load()+1)
		if _, err := t.Write([]byte(said)); err != nil {
			return err
		}
		heard, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if heard != said {
			return fmt.Errorf("said %q, heard %q", said, heard)
		}
		t.turns.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
}

// more waits for n more answers.
func (t *talk) more(n int64) error {
	tick, timeout := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for want := t.turns.Load() + n; t.turns.Load() < want; {
		select {
		case err := <-t.ended:
			t.ended <- err // for close
			return fmt.Errorf("the open connection ended: %w", err)
		case <-timeout:
			return fmt.Errorf("the open connection hangs after %d answers", t.turns.Load())
		case <-tick.C:
		}
	}
	return nil
}

// close returns when nobody speaks any more.
func (t *talk) close() {
	_ = t.Close()
	<-t.ended
}
