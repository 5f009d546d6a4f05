package logline_test

import (
	"encoding/json"
	"testing"

	"vpnd/pkg/logline"
)

var benchLines = map[string]string{
	"service": `{"ts":"2026-03-01T11:59:58.123456789Z","level":"INFO","event":"sign-in","service":"auth","request_id":"01HZX3V7E8R4","user":"alice","device":"phone","session":"s-8812","dur_ms":12.5,"ip":"10.8.0.17","attempt":3,"message":"peer p01234 at 203.0.113.9 passed the second factor in time"}`,
	"nested":  `{"time":"2026-03-01T11:59:58Z","level":"WARN","msg":"say \"no\" to \u00e9 and \\","http":{"method":"GET","path":"/a","status":200,"hdr":{"a":"b"}},"tags":["x","y"]}`,
	"plain":   `2026-03-01 11:59:58,123 WARN something happened to the thing at 10.0.0.1`,
}

func BenchmarkParse(b *testing.B) {
	for name, line := range benchLines {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				logline.Parse([]byte(line), logline.Defaults{Now: now})
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// BenchmarkEncodingJSON is what Parse has to beat: decoding alone.
func BenchmarkEncodingJSON(b *testing.B) {
	line := []byte(benchLines["service"])
	b.ReportAllocs()
	for b.Loop() {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(line, &m); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkJSON(b *testing.B) {
	r := logline.Parse([]byte(benchLines["service"]), logline.Defaults{Now: now})
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}
