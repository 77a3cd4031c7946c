package main

import (
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/tungate/tungate/config"
)

// Of lines with the same message in a second, the first sampleFirst are logged
// and then every sampleNext-th.
const (
	sampleFirst = 100
	sampleNext  = 100
)

// newLogger logs to f: for people on a terminal, else an object a line.
func newLogger(o config.LogOptions, f *os.File) *zap.Logger {
	human := o.Format == config.FormatConsole || o.Format == config.FormatAuto && isTerminal(f)
	var enc zapcore.Encoder
	if human {
		ec := zap.NewDevelopmentEncoderConfig()
		ec.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		ec.EncodeLevel = zapcore.CapitalLevelEncoder
		ec.EncodeDuration = zapcore.StringDurationEncoder
		ec.CallerKey = zapcore.OmitKey
		enc = zapcore.NewConsoleEncoder(ec)
	} else {
		ec := zap.NewProductionEncoderConfig()
		ec.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		ec.CallerKey = zapcore.OmitKey
		enc = zapcore.NewJSONEncoder(ec)
	}
	core := zapcore.NewCore(enc, zapcore.Lock(f), o.Level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, sampleFirst, sampleNext))
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
