# The collector agent. Nothing secret is inside: keys and passwords come from the environment or from mounted files.
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/dbpower-collector/.venv
# Alone, so that a change of the program does not fetch its packages again.
COPY requirements.txt ./
RUN /opt/dbpower-collector/.venv/bin/python -m pip install -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY storage ./storage
COPY agent ./agent
RUN /opt/dbpower-collector/.venv/bin/python -m pip install --no-deps .

FROM python:3.12-slim
# The number is fixed: whoever mounts a secret or a directory has to be able to name its reader.
RUN groupadd --system --gid 10001 dbpower \
    && useradd --system --uid 10001 --gid dbpower --no-create-home --shell /usr/sbin/nologin dbpower \
    && install --directory --owner=dbpower --group=dbpower --mode=0700 /var/lib/dbpower-collector \
    && install --directory /etc/dbpower-collector \
    && echo '{}' > /etc/dbpower-collector/config.json
COPY --from=build /opt/dbpower-collector /opt/dbpower-collector
ENV PATH=/opt/dbpower-collector/.venv/bin:$PATH \
    DBPOWER_DATA_DIR=/var/lib/dbpower-collector
# By number, so that an orchestrator sees without looking inside that it is not root.
USER 10001:10001
WORKDIR /var/lib/dbpower-collector
# Holds what was not delivered yet: give it a volume that outlives the container.
VOLUME /var/lib/dbpower-collector
# The agent lives whatever database and backend do; it is ill when it does not answer, or when a thread of it hangs.
HEALTHCHECK --interval=60s --timeout=15s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -m agent status --alive \"$DBPOWER_DATA_DIR\""]
ENTRYPOINT ["python", "-m", "agent"]
CMD ["--config", "/etc/dbpower-collector/config.json"]
