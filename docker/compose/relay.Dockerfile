# A relay to try Weir with: Postfix's smtp-sink, and smtp-source to send it mail.
FROM debian:trixie-slim
RUN apt-get update -q && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postfix && \
    rm -rf /var/lib/apt/lists/*
EXPOSE 25
CMD ["smtp-sink", "-u", "nobody", "0.0.0.0:25", "1000"]
