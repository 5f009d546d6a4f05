package supervise_test

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"vpnd/pkg/supervise"
)

// benchWorld starts n services and gives the function that stops them.
func benchWorld(b *testing.B, dir string, n int) (*supervise.Supervisor, func()) {
	b.Helper()
	services := map[string]supervise.Spec{}
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		services[name] = service(dir, name, "good")
	}
	s, err := supervise.New(supervise.Config{RunDir: dir, Services: services}, supervise.Deps{Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

func waitReady(b *testing.B, s *supervise.Supervisor, n int) {
	b.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		ready := 0
		for _, st := range s.Status() {
			if st.State == supervise.Ready {
				ready++
			}
		}
		if ready == n {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%d of %d services ready after %v", ready, n, patience)
		}
	}
}

// BenchmarkStartToReady is from Run to the last of nine services being ready.
func BenchmarkStartToReady(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, stop := benchWorld(b, dir, 9)
		waitReady(b, s, 9)
		b.StopTimer()
		stop()
		b.StartTimer()
	}
}

// BenchmarkKillToAnswer is from SIGKILL to an answer of the next process. Each
// death is forgotten before the next.
func BenchmarkKillToAnswer(b *testing.B) {
	dir := b.TempDir()
	s, stop := benchWorld(b, dir, 1)
	defer stop()
	for b.Loop() {
		b.StopTimer()
		waitReady(b, s, 1)
		time.Sleep(1100 * time.Millisecond)
		st, err := s.Get("s0")
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
			b.Fatal(err)
		}
		for {
			// The dying process may still have taken the call.
			if _, err := call(dir+"/s0.sock", `{"action":"ping"}`); err == nil {
				break
			}
		}
	}
}
