#!/bin/sh
# Creates the raw topics that the Collector writes to; the internal ones are made by `tailrace topics`.
# In an installation of your own these exist already and are yours.
set -eu
for topic in otlp_spans otlp_logs otlp_metrics; do
    /opt/kafka/bin/kafka-topics.sh --bootstrap-server "$KAFKA_BROKERS" --create --if-not-exists \
        --topic "$topic" --partitions 4 --config message.timestamp.type=LogAppendTime --config max.message.bytes=16777216
done
